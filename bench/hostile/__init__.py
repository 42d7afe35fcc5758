"""One gateway under attack by hostile and broken clients: ``python -m bench.hostile``."""
