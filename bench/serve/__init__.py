"""The load generator: behind ``albireo bench serve``, and used by other benchmarks."""
