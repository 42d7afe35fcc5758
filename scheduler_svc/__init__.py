"""The scheduler tier: plans batches for the worker groups of a model."""
