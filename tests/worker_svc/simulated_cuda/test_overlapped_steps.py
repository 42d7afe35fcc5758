"""Steps whose stages overlap bring what the CPU brings, in whichever order streams get on.

The tests of ``tests/worker_svc/cuda`` run on the simulated device too, under one seed.
"""

from __future__ import annotations

import pytest
import torch

from tests.worker_svc.cuda.scene import ids, in_turn, make_runner, overlapped, staggered
from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from worker_svc.buffers.staging_ring import StagingBuffer

PLANS = list(staggered(2, 5))


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    """Of the CPU."""
    return ids(in_turn(make_runner(torch.device("cpu")), PLANS))


@pytest.mark.parametrize("seed", [0, 1, 2, 5])
def test_overlapped_steps_bring_what_the_cpu_brings(expected: list[list[int]], seed: int) -> None:
    with simulated_cuda(seed):
        assert ids(overlapped(make_runner(CUDA), PLANS)) == expected


def test_a_missing_wait_shows(expected: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The compute stage does not wait for the copy stream."""
    monkeypatch.setattr(StagingBuffer, "wait", lambda self: None)

    def wrong(seed: int) -> bool:
        try:
            with simulated_cuda(seed):
                return ids(in_turn(make_runner(CUDA, cuda_graphs=False), PLANS)) != expected
        except (RuntimeError, IndexError):  # rubbish as an index
            return True

    assert any(wrong(seed) for seed in range(8))
