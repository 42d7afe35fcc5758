"""The limits of a device, measured: how fast it reads its memory and multiplies. Calibration calls it, and
benchmarks that compare steps with it."""

from __future__ import annotations

import torch

from albireo.tools.fastest import best_seconds

READ_BYTES = {"cpu": 1 << 30, "cuda": 4 << 30}
"""Of the array that is read or copied: on a GPU the launch must not count."""
SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices that are multiplied."""


def read_bandwidth(device: torch.device) -> float:
    """Bytes per second that a sum over a large array reads."""
    size = READ_BYTES[device.type]
    buffer = torch.ones(size // 4, device=device)
    return size / best_seconds(lambda: buffer.sum(), device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second that a copy within the memory reads and writes, both counted."""
    size = READ_BYTES[device.type]
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / best_seconds(lambda: target.copy_(source), device)


def multiply_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product."""
    side = SIDE[device.type]
    square = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / best_seconds(lambda: square @ square, device)
