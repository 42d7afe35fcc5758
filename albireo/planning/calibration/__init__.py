"""Calibration: a real stack serves chosen loads, and the efficiencies of a device are fitted to its steps."""
