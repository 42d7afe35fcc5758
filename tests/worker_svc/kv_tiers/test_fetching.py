"""Blocks that are filled from tiers which block, fail and are slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from albireo.contract.plan import Plan
from albireo.contract.tiers import Frames
from tests.worker_svc.kv_tiers.scene import (
    LAYOUT,
    SECONDS,
    Scene,
    chunk_plan,
    eventually,
    fetch,
    kv,
    scene,
    spill,
)
from worker_svc.kv_tiers import fetching, limits
from worker_svc.kv_tiers.copies import CpuCopies, Done


def test_a_fetch_begins_with_the_plan_and_a_step_reads_it_later() -> None:
    with scene() as s:
        s.put(1, 5)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        plan = chunk_plan(2, fetch({9: 0}, names=[5]))
        assert (
            s.begin(Plan(1, 2, admissions=plan.admissions, fetches=plan.fetches, grants=plan.grants)) is None
        )
        eventually(lambda: s.holds(9, 5))
        found = s.run(Plan(1, 3, chunks=plan.chunks))
        assert [reads.incarnation for reads in found.step.reads] == [102]
        assert found.missing == [False]
        assert s.run(Plan(1, 4, chunks=plan.chunks)).step is None  # read once


def test_a_frame_whose_write_waits_is_read_from_its_buffer() -> None:
    with scene() as s:
        s.tiers[0].writes.clear()
        for block in (1, 2, 3):
            s.put(block, block)
        s.run(Plan(1, 1, spills=(spill({1: 1, 2: 2, 3: 3}, names=[1, 2, 3]),)))
        found = s.run(chunk_plan(2, fetch({11: 1, 12: 2, 13: 3}, names=[1, 2, 3])))
        assert found.missing == [False]
        assert all(s.holds(10 + name, name) for name in (1, 2, 3))
        assert s.tiers[0].num_reads == 0
        assert found.recorded.read == ()  # no speed of the tier


@pytest.mark.usefixtures("by_layers")
@pytest.mark.parametrize("layer", range(5))
def test_a_fetch_of_what_is_not_there_fails_and_its_frames_are_lost(layer: int) -> None:
    with scene(2) as s:
        s.put(1, 5)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]), spill({1: 3}, names=[5], tier=1))))
        eventually(lambda: s.stored(0, 5) and s.stored(3, 5, tier=1))
        s.tiers[0].broken_layer = layer
        found = s.run(chunk_plan(2, fetch({8: 0}, names=[5]), fetch({9: 3}, names=[5], tier=1)))
        assert found.missing == [True]  # of one tier is enough
        assert found.recorded.lost == (Frames(0, (0,)),)
        other = s.run(chunk_plan(3, fetch({9: 3}, names=[5], tier=1), slot=2))
        assert (other.missing, other.step.reads[0].incarnation) == ([False], 103)


def test_a_released_slot_is_written_to_no_more() -> None:
    """Its fetch is blocked, and its blocks are another's by the time that the tier answers."""
    with scene() as s:
        for block in range(30):
            s.put(block, block)
        s.run(Plan(1, 1, spills=(spill({b: b for b in range(30)}, names=list(range(30))),)))
        eventually(lambda: len(s.tiers[0].contents()) == 30)
        s.tiers[0].reads.clear()
        plan = chunk_plan(2, fetch({40 + b: b for b in range(30)}, names=list(range(30))))
        s.begin(Plan(1, 2, admissions=plan.admissions, fetches=plan.fetches, grants=plan.grants))
        assert s.tiers[0].reading.wait(SECONDS)
        began = time.monotonic()
        s.run(Plan(1, 3, released=(0,)))
        assert time.monotonic() - began < 1
        for block in range(40, 70):
            s.put(block, 1000 + block)  # the next owner's
        s.tiers[0].reads.set()
        assert s.run(chunk_plan(4, fetch({70: 3}, names=[3]))).missing == [
            False
        ]  # in its turn: that was over
        assert all(s.holds(block, 1000 + block) for block in range(40, 70))
        assert s.transfers.failures == {}


def test_blocks_of_an_ended_epoch_wait_for_copies_that_were_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a fetch of which all layers are launched may still write to its blocks."""
    launched: list[Done] = []

    def scatter(self: CpuCopies, *args: object) -> Done:
        launched.append(Done())
        return launched[-1]

    monkeypatch.setattr(CpuCopies, "scatter", scatter)
    with scene() as s:
        s.put(1, 5)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        eventually(lambda: s.stored(0, 5))
        for slot in (0, 1):
            plan = chunk_plan(2 + slot, fetch({8 + slot: 0}, names=[5]), slot=slot)
            s.tiers[0].reading.clear()
            s.begin(Plan(1, 2, admissions=plan.admissions, fetches=plan.fetches, grants=plan.grants))
            assert s.tiers[0].reading.wait(SECONDS)
            if slot == 0:
                eventually(lambda: bool((found := s.transfers.record.take()) and found.read))
                s.tiers[0].reads.clear()
        s.transfers.reset()
        step = s.begin(Plan(2, 1))
        assert step is not None
        assert launched
        assert set(launched) <= set(step.ended)


def test_a_slot_that_is_released_after_a_step_reads_it_is_read() -> None:
    """With look-ahead its last step may not have run when the plan that releases it comes."""
    with scene() as s:
        s.put(1, 5)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        eventually(lambda: s.stored(0, 5))
        s.tiers[0].reads.clear()
        step = s.begin(chunk_plan(2, fetch({9: 0}, names=[5])))
        s.begin(Plan(1, 3, released=(0,)))
        assert step is not None
        s.tiers[0].reads.set()
        assert s.compute(step) == [False]


def test_a_tier_that_does_not_answer_is_given_up_and_refused_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 0.2)
    with scene() as s:
        s.put(1, 5)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        eventually(lambda: s.stored(0, 5))
        s.tiers[0].reads.clear()
        found = s.run(chunk_plan(2, fetch({8: 0}, names=[5])))
        assert found.missing == [True]
        assert 0.2e9 <= found.step.wait_ns < SECONDS * 1e9
        assert found.recorded.lost == ()  # nothing says that the frame is bad
        refused = s.run(chunk_plan(3, fetch({9: 0}, names=[5]), slot=1))
        assert refused.missing == [True]
        assert refused.step.wait_ns < 0.1e9
        assert s.transfers.failures == {("tier 0", "late"): 1, ("tier 0", "refused"): 1}
        s.put(8, 6)
        s.tiers[0].reads.set()
        eventually(lambda: s.run(chunk_plan(4, fetch({10: 0}, names=[5]), slot=2)).missing == [False])
        assert s.holds(8, 6)  # what came too late was not written


def test_a_spill_that_waits_for_a_long_step_can_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is copied when its step begins, and not by the patience that a tier is owed."""
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 0.5)
    with scene() as s:
        s.put(1, 5)
        plan = chunk_plan(1, fetch({9: 0}, names=[5]))
        step = s.begin(replace(plan, spills=(spill({1: 0}, names=[5]),)))
        assert step is not None
        time.sleep(0.7)  # the step before runs
        assert s.compute(step) == [False]
        assert s.holds(9, 5)


@pytest.mark.usefixtures("by_layers")
def test_a_tier_that_is_slow_and_brings_something_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all of a fetch, and the fetches before it: longer than for a tier that brings nothing."""
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 0.5)
    with scene() as s:
        s.put(1, 5)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        eventually(lambda: s.stored(0, 5))
        s.tiers[0].read_seconds = 0.15
        before = chunk_plan(2, fetch({8: 0}, names=[5]), slot=1)
        s.begin(Plan(1, 2, admissions=before.admissions, fetches=before.fetches, grants=before.grants))
        found = s.run(chunk_plan(3, fetch({9: 0}, names=[5])))
        assert found.missing == [False]
        assert found.step.wait_ns > 0.5e9
        assert s.transfers.failures == {}


@pytest.mark.usefixtures("by_layers")
def test_a_tier_that_is_too_slow_is_given_up_and_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MOST_SECONDS", 0.3)
    with scene() as s:
        s.put(1, 5)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        eventually(lambda: s.stored(0, 5))
        s.tiers[0].read_seconds = 0.2
        assert s.run(chunk_plan(2, fetch({8: 0}, names=[5]))).missing == [True]
        s.tiers[0].read_seconds = 0.0
        eventually(lambda: s.run(chunk_plan(3, fetch({9: 0}, names=[5]), slot=1)).missing == [False])
        assert s.transfers.failures.keys() == {("tier 0", "late")}


def test_a_rank_without_memory_for_buffers_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that ended for it would let each step wait for its fetches in vain."""
    buffer, calls = CpuCopies.buffer, list[int]()

    def no_more(self: CpuCopies, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        calls.append(len(shape))
        if len(calls) > 1:
            raise RuntimeError("out of memory")
        return buffer(self, shape, dtype)

    monkeypatch.setattr(CpuCopies, "buffer", no_more)
    with pytest.raises(RuntimeError, match="out of memory"):
        Scene()


@pytest.mark.usefixtures("by_layers")
def test_layers_are_waited_for_one_by_one() -> None:
    with scene() as s:
        s.put(1, 5)
        s.run(Plan(1, 1, spills=(spill({1: 0}, names=[5]),)))
        eventually(lambda: s.stored(0, 5))
        s.tiers[0].reads.clear()
        step = s.begin(chunk_plan(2, fetch({9: 0}, names=[5])))
        assert step is not None
        step.start()
        layers = step.caches(s.cache.layers)
        first = threading.Thread(target=lambda: next(layers))
        first.start()
        first.join(0.05)
        assert first.is_alive()
        s.tiers[0].reads.set()
        first.join(SECONDS)
        assert not first.is_alive()
        assert torch.equal(s.cache.storage[0, :, 9], kv(5)[0])
        s.tiers[0].reads.set()
        assert len(list(layers)) == 4


@pytest.mark.parametrize(("blocks", "reads"), [(1, 1), (3, 1), (4, 4)])
def test_a_small_fetch_reads_whole_frames(monkeypatch: pytest.MonkeyPatch, blocks: int, reads: int) -> None:
    monkeypatch.setattr(limits, "WHOLE_BYTES", 3 * LAYOUT.block_bytes)
    names = list(range(blocks))
    with scene() as s:
        for name in names:
            s.put(name, name)
        s.run(Plan(1, 1, spills=(spill({name: name for name in names}, names=names),)))
        eventually(lambda: all(s.stored(name, name) for name in names))
        found = s.run(chunk_plan(2, fetch({9 + name: name for name in names}, names=names)))
        assert found.missing == [False]
        assert all(s.holds(9 + name, name) for name in names)
        assert s.tiers[0].num_reads == reads
