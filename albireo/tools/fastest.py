"""The time of a computation on a device, as calibration and the doctor measure it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def best_seconds(body: Callable[[], object], device: torch.device, times: int = 7) -> float:
    """Seconds of the fastest of several runs."""
    return min(run_seconds(body, device) for _ in range(times))


def run_seconds(body: Callable[[], object], device: torch.device) -> float:
    """Seconds of one run, until the device is done with it."""
    start = time.perf_counter()
    body()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
