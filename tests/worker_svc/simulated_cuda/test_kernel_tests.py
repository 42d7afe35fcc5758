"""Tests for a GPU, on the simulated device: those whose subject is the order of streams, with fewer steps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from albireo.contract.plan import Plan, SamplingParams
from tests.worker_svc.cuda import (
    scene,
    test_gpu_graphs,
    test_gpu_kernels,
    test_gpu_overlap,
    test_gpu_sampling,
)
from tests.worker_svc.cuda.scene import ids, in_turn, make_runner, overlapped
from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from worker_svc.buffers.staging_ring import StagingBuffer

MOST_REQUESTS, MOST_OUTPUTS, MOST_SAMPLING = 2, 5, 2


def fewer(requests: int, outputs: int, sampling: Sequence[SamplingParams] = (scene.GREEDY,)) -> list[Plan]:
    requests, outputs = min(requests, MOST_REQUESTS), min(outputs, MOST_OUTPUTS)
    return list(scene.staggered(requests, outputs, sampling[:MOST_SAMPLING]))


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (test_gpu_overlap, test_gpu_kernels):
        monkeypatch.setattr(module, "staggered", fewer)


test_timestamps_show_how_long_the_device_took = test_gpu_overlap.test_timestamps_show_how_long_the_device_took
test_logits_with_and_without_masks = test_gpu_kernels.test_steps_bring_the_logits_of_torchs_operations


@pytest.mark.slow
def test_logits_with_and_without_graphs(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    test_gpu_graphs.test_logits_while_batch_and_context_grow_and_shrink(cuda, monkeypatch)


def test_launches_far_ahead_of_the_device(cuda: torch.device) -> None:
    test_gpu_overlap.test_launches_far_ahead_of_the_device(cuda, cuda_graphs=True)


def test_execute_calls_nothing_that_waits(cuda: torch.device) -> None:
    test_gpu_overlap.test_execute_calls_nothing_that_waits(cuda, cuda_graphs=True)


def test_the_largest_numbers_draw_what_all_numbers_draw(cuda: torch.device) -> None:
    test_gpu_sampling.test_the_largest_numbers_draw_what_all_numbers_draw(cuda, vocabulary=257)


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    """Of the CPU."""
    return ids(in_turn(make_runner(torch.device("cpu")), fewer(9, 64)))


@pytest.mark.parametrize("seed", [0, 2])
def test_overlapped_steps_bring_what_the_cpu_brings(expected: list[list[int]], seed: int) -> None:
    with simulated_cuda(seed):
        assert ids(overlapped(make_runner(CUDA), fewer(9, 64))) == expected


def test_a_missing_wait_shows(expected: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The compute stage does not wait for the copy stream."""
    monkeypatch.setattr(StagingBuffer, "wait", lambda self: None)

    def wrong(seed: int) -> bool:
        try:
            with simulated_cuda(seed):
                return ids(in_turn(make_runner(CUDA, cuda_graphs=False), fewer(9, 64))) != expected
        except (RuntimeError, IndexError):  # rubbish as an index
            return True

    assert any(wrong(seed) for seed in range(8))
