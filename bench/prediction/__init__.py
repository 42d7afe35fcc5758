"""Whether a simulation with a calibrated device predicts what the real stack does on the same machine."""
