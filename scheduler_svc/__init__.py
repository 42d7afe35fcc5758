"""The scheduler tier: plans batches for a worker group."""
