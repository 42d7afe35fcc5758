"""Which draws run as CUDA graphs, and that those bring what the CPU brings."""

from __future__ import annotations

import pytest
import torch

from tests.worker_svc.cuda.test_gpu_draw_graphs import REQUESTS, sampled
from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda

STEPS = 6


@pytest.mark.parametrize("kind", REQUESTS)
def test_graphs_draw_what_the_cpu_draws(kind: str) -> None:
    with simulated_cuda(0) as device:
        expected = sampled(torch.device("cpu"), REQUESTS[kind], graphs=False)
        assert sampled(CUDA, REQUESTS[kind], graphs=True) == expected
        assert device.counts["replay"] == (1 if kind == "mixed" else STEPS)  # its first row is greedy
