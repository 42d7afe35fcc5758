"""What sampling costs: behind ``albireo bench sampling``."""
