"""What sampling costs on the CPU: behind ``albireo bench sampling``."""
