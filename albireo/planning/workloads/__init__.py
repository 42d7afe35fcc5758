"""Where workloads come from: lengths and arrivals that are drawn, presets, and files."""
