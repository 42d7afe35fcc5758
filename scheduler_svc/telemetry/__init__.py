"""Telemetry of the scheduler: its state, steps, and waiting times of traced requests."""
