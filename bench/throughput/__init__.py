"""Throughput of the model alone, and of the whole stack against the model alone."""
