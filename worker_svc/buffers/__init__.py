"""Memory that arrays and tensors lie in."""
