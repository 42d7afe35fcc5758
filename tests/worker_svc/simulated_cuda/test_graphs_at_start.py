"""CUDA graphs are captured when a rank starts, and their memory is none that KV blocks get."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from albireo.checkpoint.files import CheckpointError
from tests.worker_svc.cuda.scene import SLOTS, ids, in_turn, make_runner, overlapped, staggered
from tests.worker_svc.simulated_cuda.device import CUDA, Device
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from worker_svc.model import loader
from worker_svc.model.sdpa import SdpaAttention
from worker_svc.runner import model_runner
from worker_svc.runner.kv_sizing import Sizing

BUCKETS = 6
"""1, 2, 4, 8, 16 and 20 rows."""
DRAWS = 3 * BUCKETS
"""One for each way to draw."""
GRAPHS = BUCKETS + DRAWS


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    """Of the CPU."""
    return ids(in_turn(make_runner(torch.device("cpu")), list(staggered(3, 6))))


def test_all_are_captured_before_the_first_step(
    simulated: Device, expected: list[list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "worker_svc.buffers.graph_memory"):
        runner = make_runner(CUDA)
    assert f"captured {BUCKETS} CUDA graphs, of decode steps of 1 to {SLOTS} rows" in caplog.text
    assert f"captured {DRAWS} CUDA graphs, of draws of 1 to {SLOTS} rows" in caplog.text
    before = simulated.counts["capture"], simulated.counts["replay"]
    assert before == (GRAPHS, 0)
    plans = list(staggered(3, 6))
    assert ids(in_turn(runner, plans)) == expected
    assert simulated.counts["capture"] == GRAPHS
    decoding = sum(plan.num_decodes > 0 and not plan.chunks for plan in plans)
    sampling = sum(plan.num_decodes > 0 or len(plan.chunks) > 0 for plan in plans)
    assert simulated.counts["replay"] == decoding + sampling
    assert decoding > 5


def test_the_capture_writes_to_no_block_that_is_read(simulated: Device) -> None:
    runner = make_runner(CUDA)
    storage = runner._cache.storage.cpu()
    assert not storage[:, :, : runner.shape.num_blocks + 1].any()
    assert storage[:, :, runner.shape.num_blocks + 1].any()  # what padding rows write


def test_without_tritons_kernels_steps_run_without_graphs(
    expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulated_cuda(2) as device:
        monkeypatch.setattr(loader, "triton_kernels", lambda *_: None)
        runner = make_runner(CUDA)
        assert isinstance(runner._model.attention.paged, SdpaAttention)
        assert ids(overlapped(runner, list(staggered(3, 6)))) == expected
        assert not device.counts["capture"]


def test_kv_blocks_leave_memory_for_graphs(simulated: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = make_runner(CUDA)
    captured: list[int] = []

    def free() -> Iterator[int]:
        for memory in (10_000_000, 9_000_000, 10_000_000):
            captured.append(simulated.counts["capture"])
            yield memory

    answers = {
        "mem_get_info": lambda _: (20_000_000, 40_000_000),
        "memory_allocated": lambda _: 300_000,
        "max_memory_allocated": lambda _: 800_000,
        "reset_peak_memory_stats": lambda _: None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    left = free()
    monkeypatch.setattr(model_runner, "free_memory", lambda _: next(left))
    sizing = Sizing(runner.config, 1, torch.float32, SLOTS, 64)
    assert runner._free_on_gpu(sizing) == (10_000_000 - 1_000_000 - 500_000, 40_000_000)
    assert captured == [GRAPHS, 2 * GRAPHS, 2 * GRAPHS]


def test_no_memory_for_graphs_ends_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated_cuda(0):

        def full(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(torch.cuda, "graph", full)
        with pytest.raises(CheckpointError, match="lower --kv-memory"):
            make_runner(CUDA)
