"""The id that stands for none: samplers give it, finish detection ends the row's request."""

from __future__ import annotations

FAILED = -1
"""Of a row whose logits are NaN or infinite, or leave nothing to draw."""
