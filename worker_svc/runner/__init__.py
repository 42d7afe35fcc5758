"""Runners of steps: a model on a device, or the simulated device."""
