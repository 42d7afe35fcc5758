"""The model: config, weights, layers, attention, KV cache."""
