"""What clients that mean harm, or are broken, can do to one gateway: ``python -m bench.hostile``."""
