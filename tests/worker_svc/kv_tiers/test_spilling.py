"""Blocks that are copied to tiers: when, and what becomes of them where a tier is slow or full."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from albireo.contract.plan import Grant, Plan
from albireo.contract.tiers import Frames
from tests.worker_svc.kv_tiers.scene import (
    SECONDS,
    Scene,
    chunk_plan,
    eventually,
    fetch,
    key,
    scene,
    spill,
)
from worker_svc.kv_tiers import step_transfers
from worker_svc.kv_tiers.limits import MOST


def test_blocks_that_change_hands_are_copied_before_the_step_touches_them() -> None:
    with scene() as s:
        s.put(3, 5)
        s.tiers[0].writes.clear()
        step = s.begin(Plan(1, 1, spills=(spill({3: 0}, names=[5]),), grants=(Grant(0, (3,)),)))
        assert step is not None
        step.start()
        s.put(3, 6)  # the step's own KV
        s.tiers[0].writes.set()
        assert s.run(chunk_plan(2, fetch({4: 0}, names=[5]))).missing == [False]
        assert s.holds(4, 5)


def test_blocks_that_stay_are_copied_when_the_steps_before_have_run() -> None:
    with scene() as s:
        step = s.begin(Plan(1, 1, spills=(spill({3: 0}, names=[5]),)))
        assert step is not None
        s.put(3, 5)  # by the step before, which runs only now
        s.compute(step)
        step.settle()
        s.put(3, 6)
        eventually(lambda: s.stored(0, 5))
        assert s.run(chunk_plan(2, fetch({4: 0}, names=[5]))).missing == [False]
        assert s.holds(4, 5)


def test_a_fetch_into_a_block_that_is_spilled_in_the_same_plan_waits_for_the_copy() -> None:
    with scene() as s:
        s.put(1, 5)
        s.put(2, 6)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        plan = chunk_plan(2, fetch({2: 0}, names=[5]))
        found = s.run(
            Plan(
                1,
                2,
                spills=(spill({2: 1}, names=[6]),),
                admissions=plan.admissions,
                fetches=plan.fetches,
                grants=plan.grants,
                chunks=plan.chunks,
            )
        )
        assert found.missing == [False]
        assert s.holds(2, 5)
        assert s.run(chunk_plan(3, fetch({7: 1}, names=[6]), slot=1)).missing == [False]
        assert s.holds(7, 6)


def test_a_fetch_waits_for_a_copy_of_an_earlier_step_out_of_its_blocks() -> None:
    """As on a rank that is behind rank 0, whose results alone the scheduler has."""
    with scene() as s:
        s.put(1, 5)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        s.put(2, 6)
        behind = s.begin(Plan(1, 2, spills=(spill({2: 1}, names=[6]),)))
        plan = chunk_plan(3, fetch({2: 0}, names=[5]))
        ahead = s.begin(plan)
        assert behind is not None
        assert ahead is not None
        time.sleep(0.05)
        assert s.holds(2, 6)
        s.compute(behind)
        assert s.compute(ahead) == [False]
        assert s.holds(2, 5)
        assert s.run(chunk_plan(4, fetch({3: 1}, names=[6]))).missing == [False]
        assert s.holds(3, 6)


def test_of_two_spills_to_a_frame_the_later_counts() -> None:
    with scene() as s:
        s.tiers[0].writes.clear()
        s.put(1, 5)
        s.put(2, 6)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        s.run(Plan(1, 2, spills=(spill({2: 0}, names=[6]),)))
        found = s.run(chunk_plan(3, fetch({7: 0}, names=[5])))
        assert found.missing == [True]
        s.tiers[0].writes.set()
        eventually(lambda: s.stored(0, 6))
        assert s.run(chunk_plan(4, fetch({7: 0}, names=[6]))).missing == [False]


def test_a_full_ring_drops_spills_and_blocks_nothing() -> None:
    with scene(frames=1000) as s:
        s.tiers[0].writes.clear()
        most = MOST + 1  # one buffer has left the ring for the thread that writes: it is not free
        began = time.monotonic()
        lost: list[Frames] = []
        for step in range(1, most + 1):
            lost += s.run(Plan(1, step, spills=(spill({0: step}, names=[step]),))).recorded.lost
        assert time.monotonic() - began < SECONDS
        assert lost == [Frames(0, (most,))]
        assert s.transfers.failures == {("tier 0", "full"): 1}
        s.tiers[0].writes.set()
        eventually(lambda: len(s.tiers[0].contents()) == MOST)
        s.run(Plan(1, 99, spills=(spill({0: 99}, names=[99]),)))
        eventually(lambda: s.stored(99, 99))


def lost_since(s: Scene, lost: tuple[Frames, ...]) -> list[Frames]:
    """What the first results report that have something, from one that has reported ``lost``."""
    found = list(lost)

    def reported() -> bool:
        found.extend(s.run(Plan(1, 2)).recorded.lost)
        return bool(found)

    eventually(reported)
    return found


def test_a_frame_that_cannot_be_written_is_lost() -> None:
    with scene() as s:
        s.tiers[0].full = True
        first = s.run(Plan(1, 1, spills=(spill({1: 4, 2: 5}, names=[1, 2]),)))
        assert lost_since(s, first.recorded.lost) == [Frames(0, (4, 5))]
        assert s.transfers.failures == {("tier 0", "write"): 2}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_kv_that_is_not_finite_is_kept_by_no_tier(number: float) -> None:
    """It ends its request. A tier would have it for the next one with this prompt, after a restart too."""
    with scene() as s:
        for block in (1, 2, 3):
            s.put(block, block)
        s.cache.storage[-1, 1, 2, -1, -1, -1] = number
        first = s.run(Plan(1, 1, spills=(spill({1: 1, 2: 2, 3: 3}, names=[1, 2, 3]),)))
        assert lost_since(s, first.recorded.lost) == [Frames(0, (2,))]
        assert s.tiers[0].contents() == {1: key(1), 3: key(3)}
        assert s.transfers.failures == {("tier 0", "nan"): 1}


def test_the_end_writes_what_was_copied() -> None:
    with scene() as s:
        s.put(1, 5)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
    assert s.stored(0, 5)
    assert s.tiers[0].closed


def test_a_copy_that_takes_too_long_is_dropped_and_its_blocks_change_hands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the buffer gets from then on is the next owner's: no tier may have it under the old key."""
    monkeypatch.setattr(step_transfers, "COPY_SECONDS", 0.1)
    with scene() as s:
        s.put(1, 5)
        begun, go_on = threading.Event(), threading.Event()
        gather = s.cache.gather

        def slow(blocks: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
            begun.set()
            assert go_on.wait(SECONDS)
            return gather(blocks, out)

        monkeypatch.setattr(type(s.cache), "gather", lambda self, blocks, out=None: slow(blocks, out))
        found = s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        assert begun.is_set()
        assert found.recorded.lost == (Frames(0, (0,)),)
        step = s.begin(Plan(1, 2, grants=(Grant(0, (1,)),)))
        assert step is None  # nothing to wait for any more
        s.put(1, 6)
        go_on.set()
        s.run(Plan(1, 3, spills=(spill({1: 1}, names=[6]),)))
        eventually(lambda: s.stored(1, 6))
        assert s.tiers[0].contents() == {1: key(6)}
        assert s.transfers.failures == {("tier 0", "dropped"): 1}
