"""What runs a step: a model on a device, or the simulated device."""
