"""Tests of ``bench.fairness``."""
