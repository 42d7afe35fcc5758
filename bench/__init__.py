"""All measurements: ``albireo bench serve``, ``overhead`` and ``sampling``, and ``python -m bench.NAME``."""
