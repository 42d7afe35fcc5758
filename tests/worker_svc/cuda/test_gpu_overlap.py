"""What only a device with streams of its own can get wrong: reuse of buffers, hidden waits, clocks."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from tests.worker_svc.cuda.scene import (
    GREEDY,
    MIXED,
    amount,
    ids,
    in_turn,
    make_runner,
    overlapped,
    staggered,
)
from worker_svc.buffers.staging_ring import BUFFERS
from worker_svc.runner import timestamps

GRAPHS = pytest.mark.parametrize("cuda_graphs", [True, False], ids=["graphs", "eager"])
DRAWN = {
    "mixed": MIXED,
    "greedy": [GREEDY],
    "plain": [replace(GREEDY, temperature=0.9), GREEDY],
    "bounded": [replace(GREEDY, temperature=0.9, top_k=40, top_p=0.9), GREEDY],
}
"""Each but the first is drawn by CUDA graphs."""
MILLISECOND = 2_000_000  # cycles, about


@GRAPHS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_overlapped_steps_bring_the_same(cuda: torch.device, dtype: torch.dtype, cuda_graphs: bool) -> None:
    plans = list(staggered(9, 64, MIXED))
    expected = in_turn(make_runner(cuda, dtype=dtype, cuda_graphs=cuda_graphs), plans)
    runner = make_runner(cuda, dtype=dtype, cuda_graphs=cuda_graphs)
    for _ in range(3):
        found = overlapped(runner, plans)
        assert ids(found) == ids(expected)
        assert [output.logprobs for output in found] == [output.logprobs for output in expected]


@GRAPHS
def test_the_ring_goes_round_ahead_of_a_slow_device(cuda: torch.device, cuda_graphs: bool) -> None:
    """Steps are staged as fast as the queues allow, and the device is a step or more behind all of them."""
    runner, plans = make_runner(cuda, cuda_graphs=cuda_graphs), list(staggered(9, 64, MIXED))
    expected = ids(in_turn(runner, plans))
    assert len(plans) > amount(8, simulated=1) * BUFFERS
    found = overlapped(runner, plans, before_step=lambda: torch.cuda._sleep(2 * MILLISECOND))
    assert ids(found) == expected


@GRAPHS
@pytest.mark.parametrize("drawn", DRAWN)
def test_launches_far_ahead_of_the_device(cuda: torch.device, cuda_graphs: bool, drawn: str) -> None:
    """No output is fetched before all is launched: buffers wait for their readers on the device."""
    runner, plans = make_runner(cuda, cuda_graphs=cuda_graphs), list(staggered(9, 64, DRAWN[drawn]))
    expected = ids(in_turn(runner, plans))
    runner.reset()
    outputs = []
    for plan in plans:
        torch.cuda._sleep(MILLISECOND // 4)
        outputs.append(runner.execute(runner.prepare(plan)))
    assert ids([output.to_host() for output in outputs]) == expected


@GRAPHS
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_execute_calls_nothing_that_waits(cuda: torch.device, cuda_graphs: bool) -> None:
    runner, plans = make_runner(cuda, cuda_graphs=cuda_graphs), list(staggered(9, 64, MIXED))
    expected = ids(in_turn(runner, plans))  # and compiles kernels, and fills the caches of memory
    runner.reset()
    found = []
    for plan in plans:
        batch = runner.prepare(plan)
        torch.cuda.set_sync_debug_mode("error")
        try:
            output = runner.execute(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found.append(output.to_host())
    assert ids(found) == expected


@GRAPHS
def test_execute_returns_while_the_device_is_busy(cuda: torch.device, cuda_graphs: bool) -> None:
    """The debug mode does not know every call that waits; a device that sleeps finds the others."""
    runner, plans = make_runner(cuda, cuda_graphs=cuda_graphs), list(staggered(9, 64, MIXED))
    for _ in range(2):
        in_turn(runner, plans)
    runner.reset()
    for number, plan in enumerate(plans):
        batch = runner.prepare(plan)
        if number % 10:
            runner.execute(batch).to_host()
            continue
        torch.cuda.synchronize()
        torch.cuda._sleep(100 * MILLISECOND)
        output = runner.execute(batch)
        assert output._done is not None
        assert not output._done.query(), f"step {number} was waited for"
        output.to_host()


def test_timestamps_are_in_order_across_calibrations(
    cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timestamps, "RECALIBRATE_NS", 0)
    runner = make_runner(cuda)
    began = time.time_ns()
    found: list[int] = []
    pending = []
    for plan in staggered(6, 64):
        pending.append(runner.execute(runner.prepare(plan)))
        if len(pending) > 2:  # so that events lie on both sides of a new base
            output = pending.pop(0)
            output.to_host()
            found += output.timestamps()
    ended = time.time_ns()
    assert all(earlier <= later for earlier, later in pairwise(found))
    assert began - 1_000_000 < found[0]
    assert found[-1] < ended + 1_000_000


def test_timestamps_show_how_long_the_device_took(cuda: torch.device) -> None:
    runner, plans = make_runner(cuda), list(staggered(2, 10))
    in_turn(runner, plans)
    runner.reset()
    began = time.time_ns()
    torch.cuda._sleep(50 * MILLISECOND)
    output = runner.execute(runner.prepare(plans[0]))
    launched = time.time_ns()
    output.to_host()
    forward, sampling, end = output.timestamps()
    assert launched < forward < sampling < end < time.time_ns()
    assert forward - began > 10_000_000


def test_an_input_thread_needs_no_device_of_its_own(cuda: torch.device) -> None:
    """A new thread's current device is the first one, whichever this rank has."""
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    with torch.cuda.device(device):
        runner, plans = make_runner(device), list(staggered(3, 20))
        expected = ids(in_turn(runner, plans))
        assert ids(overlapped(runner, plans)) == expected
