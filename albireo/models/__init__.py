"""Checkpoints that come with the package, in Hugging Face layout."""

from pathlib import Path

TINY = Path(__file__).resolve().parent / "tiny"
"""The bundled model, trained by ``bench/train_tiny.py``: to check a system with, from any directory."""
