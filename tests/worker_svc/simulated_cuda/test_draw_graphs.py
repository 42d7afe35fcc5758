"""Draws by CUDA graphs, on the simulated device."""

from __future__ import annotations

import pytest
import torch

from tests.worker_svc.cuda import test_gpu_draw_graphs
from tests.worker_svc.cuda.test_gpu_draw_graphs import REQUESTS, sampled
from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda

STEPS = 6


@pytest.fixture(autouse=True)
def a_small_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_gpu_draw_graphs, "VOCABULARY", 700)


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("seed", [0, 2])
def test_graphs_draw_what_the_cpu_draws(kind: str, seed: int) -> None:
    expected = sampled(torch.device("cpu"), REQUESTS[kind], graphs=False)
    with simulated_cuda(seed) as device:
        assert sampled(CUDA, REQUESTS[kind], graphs=True) == expected
        assert device.counts["replay"] == (1 if kind == "mixed" else STEPS)  # its first row is greedy
