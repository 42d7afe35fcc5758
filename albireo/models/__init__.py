"""Checkpoints that come with the package, in Hugging Face layout."""

from pathlib import Path

TINY = Path(__file__).resolve().parent / "tiny"
"""Directory of the bundled model, trained by ``bench/tiny/train.py``: small enough to check a system with."""
