"""Steps of the bundled model with spills and fetches bring the ids of a model that computes all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from albireo.contract.plan import Admission, Chunk, Grant, Plan
from albireo.contract.tiers import Fetch, Spill
from albireo.models import TINY
from albireo.runtime.kv_memory import KvMemory
from tests.worker_svc.cuda.scene import GREEDY, ids, in_turn, staggered
from tests.worker_svc.kv_tiers.memory_tier import MemoryTier
from tests.worker_svc.pipeline import overlapped
from tests.worker_svc.ranks import run_group
from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from tests.worker_svc.simulated_cuda.ranks import OnSimulated
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kv_tiers.cuda_copies import CudaCopy
from worker_svc.runner.model_runner import ModelRunner

STEPS = 16
SETTLED = [max(0, step - 2) for step in range(1, STEPS + 1)]
KEYS = tuple(bytes([number]) * 16 for number in range(1, 5))
"""Of the blocks of A's prompt."""
FIRST, SECOND, THIRD = (tuple(2 + 7 * i % (300 + n) for i in range(n)) for n in (66, 36, 36))


def make_runner(
    device: torch.device, *, tiers: bool, cuda_graphs: bool = False, group: TPGroup | None = None
) -> ModelRunner:
    return ModelRunner(
        TINY,
        group or TPGroup(),
        device=device,
        dtype=torch.float32,
        kv_memory=KvMemory(2 << 20),
        max_seqs=6,
        max_model_len=128,
        cuda_graphs=cuda_graphs,
        tiers=(lambda layout: [MemoryTier(layout)]) if tiers else None,
    )


def admitted(step: int, slot: int, prompt: tuple[int, ...], blocks: Sequence[int], cached: int = 0) -> Plan:
    """A plan that computes what is not cached of a prompt."""
    return Plan(
        1,
        step,
        admissions=(Admission(slot, 100 + slot, f"r{slot}", prompt, 0, cached, GREEDY),),
        grants=(Grant(slot, tuple(blocks)),),
        chunks=(Chunk(slot, cached, len(prompt) - cached),),
    )


def story(*, tiers: bool) -> list[Plan]:
    """A and B decode. A's blocks are spilled, A ends, and C gets them, one in the plan that spills it.
    A comes back and is fetched. A fetch for D is cancelled, and B gets its block.

    Each plan is made for blocks that are free once the step two before it has settled: ``SETTLED``."""
    plans = {step: Plan(1, step) for step in range(1, STEPS + 1)}
    first, second = admitted(1, 0, FIRST, range(5)), admitted(1, 1, SECOND, (10, 11, 12))
    plans[1] = replace(
        first,
        admissions=first.admissions + second.admissions,
        grants=first.grants + second.grants,
        chunks=first.chunks + second.chunks,
    )
    plans[5] = Plan(1, 5, released=(0,))
    plans[6] = admitted(6, 2, THIRD, (3, 0, 1))
    plans[8] = admitted(8, 3, FIRST, (20, 21, 2, 22, 23), cached=64 if tiers else 0)
    plans[14] = Plan(1, 14, grants=(Grant(1, (30,)),))
    if tiers:
        plans[4] = Plan(1, 4, spills=(Spill(0, (0, 1, 2), (7, 8, 9), KEYS[:3]),))
        plans[6] = replace(plans[6], spills=(Spill(0, (3,), (5,), KEYS[3:]),))
        plans[8] = replace(plans[8], fetches=(Fetch(3, 0, (20, 21, 2, 22), (7, 8, 9, 5), KEYS),))
        waiting = admitted(10, 4, FIRST, (30,), cached=16)
        plans[10] = replace(waiting, chunks=(), fetches=(Fetch(4, 0, (30,), (7,), KEYS[:1]),))
        plans[11] = Plan(1, 11, released=(4,))
    decoding: set[int] = set()
    found = []
    for plan in plans.values():
        decoding -= set(plan.released)
        found.append(replace(plan, num_decodes=len(decoding)))
        decoding |= {chunk.slot for chunk in plan.chunks}
    return found


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    """Of the CPU, without tiers."""
    return ids(in_turn(make_runner(torch.device("cpu"), tiers=False), story(tiers=False)))


@pytest.mark.parametrize("seed", [1, 2])
def test_stages_that_overlap_bring_the_same_ids(expected: list[list[int]], seed: int) -> None:
    """Spills go on behind the replay of graphs, the fetch next to decoding rows of others."""
    with simulated_cuda(seed) as device:
        runner = make_runner(CUDA, tiers=True, cuda_graphs=bool(seed % 2))
        for _ in range(2):  # at first graphs are captured
            found = overlapped(runner, story(tiers=True), SETTLED)
            assert [sampled[2] for sampled in found] == expected
        runner.close()
        assert runner.tier_failures == {}
        assert bool(device.counts["replay"]) == bool(seed % 2)


@dataclass(frozen=True)
class Story:
    """A job of a group: the ids of each step."""

    def __call__(self, group: TPGroup) -> list[list[int]]:
        runner = make_runner(CUDA, tiers=True, cuda_graphs=True, group=group)
        found = overlapped(runner, story(tiers=True), SETTLED)
        runner.close()
        assert runner.tier_failures == {}
        return [sampled[2] for sampled in found]


def test_two_ranks_with_tiers_and_graphs_bring_the_same_ids(
    expected: list[list[int]], tmp_path: Path
) -> None:
    found = run_group(2, {str(seed): OnSimulated(Story(), seed) for seed in (1, 2)}, tmp_path)
    assert found == {"1": expected, "2": expected}


def test_a_step_that_does_not_wait_for_its_layers_shows(
    expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CudaCopy, "before_compute", lambda self: None)
    with simulated_cuda(2):  # which brings what it should below
        runner = make_runner(CUDA, tiers=True)
        found = in_turn(runner, story(tiers=True))
        runner.close()
    assert ids(found) != expected


def test_steps_without_transfers_ask_nothing_more_of_the_device() -> None:
    """Steps with prompts, and those that run as graphs."""

    def asked(tiers: bool) -> Counter[str]:
        with simulated_cuda(0) as device:
            runner = make_runner(CUDA, tiers=tiers, cuda_graphs=True)
            before = device.calls()
            in_turn(runner, list(staggered(2, 4)))
            found = device.calls() - before
            runner.close()
            return found

    assert asked(True) == asked(False)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_execute_waits_for_no_copy(expected: list[list[int]]) -> None:
    """Nor for the device: its stream waits."""
    with simulated_cuda(2):
        runner = make_runner(CUDA, tiers=True)
        runner.reset()
        found = []
        for plan in story(tiers=True):
            batch = runner.prepare(plan)
            torch.cuda.set_sync_debug_mode("error")
            output = runner.execute(batch)
            torch.cuda.set_sync_debug_mode("default")
            found.append(output.to_host())
        runner.close()
        assert ids(found) == expected
