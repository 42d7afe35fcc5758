"""What NVML reports of a real GPU."""

from __future__ import annotations

import time

import pytest
import torch

from worker_svc.telemetry.gpu import GpuReader

pytestmark = pytest.mark.gpu("NVML reports of a card")


def test_power_energy_and_utilization_of_a_busy_gpu(cuda: torch.device) -> None:
    reader = GpuReader.of(cuda, rank=1)
    assert reader is not None
    first, began = reader.read(), time.monotonic()
    matrix = torch.randn(4096, 4096, device=cuda)
    while time.monotonic() - began < 1.5:
        matrix = (matrix @ matrix).clamp(-1, 1)
    torch.cuda.synchronize(cuda)
    last, seconds = reader.read(), time.monotonic() - began
    assert last.rank == 1
    assert 0 < last.utilization <= 1
    assert 5 < last.watts < 2000
    assert 5 < (last.joules - first.joules) / seconds < 2000
