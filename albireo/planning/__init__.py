"""What a model needs on given hardware: workloads, simulation in virtual time, calibration, and the choice
of the TP degree."""
