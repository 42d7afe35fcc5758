"""The limits of a device, measured: how fast it reads its memory and multiplies. Calibration calls it."""

from __future__ import annotations

import torch

from albireo.tools.fastest import best_seconds

READ_BYTES = 1 << 30
SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices that are multiplied."""


def read_bandwidth(device: torch.device) -> float:
    """Bytes per second that a sum over a large array reads."""
    buffer = torch.ones(READ_BYTES // 4, device=device)
    return READ_BYTES / best_seconds(lambda: buffer.sum(), device)


def multiply_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product."""
    side = SIDE[device.type]
    square = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / best_seconds(lambda: square @ square, device)
