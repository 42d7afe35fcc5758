"""The load generator behind ``albireo bench serve``."""
