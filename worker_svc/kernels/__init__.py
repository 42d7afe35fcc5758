"""What a layer does: norms, gates, rotation; attention too for CPUs and GPUs, and products for CPUs."""
