"""Telemetry of a rank: metrics of its steps and its GPU, spans of traced requests."""
