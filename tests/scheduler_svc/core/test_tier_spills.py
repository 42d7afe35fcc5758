"""What is spilled to the tiers, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.contract.plan import Plan, StepResult
from albireo.contract.tiers import Frames, TierShape

from .tiered import STEP_SECONDS, Tiered, disk, prompt


def spilled(plan: Plan) -> int:
    return sum(len(spill.blocks) for spill in plan.spills)


def test_blocks_are_written_behind_the_steps_at_half_of_what_the_tier_can_do() -> None:
    w = Tiered(disk(write=STEP_SECONDS / 10))
    w.submit("a", prompt(12), max_tokens=8)
    w.plan()
    w.settle()
    counts = []
    for _ in range(4):
        counts.append(spilled(w.planned()))
        w.settle()
        w.now += STEP_SECONDS
    assert counts == [5, 5, 2, 0]
    assert w.plans[2].spills[0].blocks == tuple(reversed(range(5)))
    assert w.frames_used() == 12


def test_a_tier_that_writes_slower_than_the_steps_gets_a_block_now_and_then() -> None:
    w = Tiered(disk(write=3 * STEP_SECONDS))
    w.submit("a", prompt(4), max_tokens=16)
    w.plan()
    w.settle()
    counts = []
    for _ in range(9):
        counts.append(spilled(w.planned()))
        w.settle()
        w.now += STEP_SECONDS
    assert counts == [1, 0, 1, 0, 0, 1, 0, 0, 1]


def test_an_idle_group_writes_what_is_left_as_fast_as_the_tier_takes_it_and_then_rests() -> None:
    w = Tiered(disk(write=STEP_SECONDS / 4))
    w.submit("a", prompt(20), max_tokens=1)
    w.run()
    assert 0 < w.frames_used() < 20
    wakes = 0
    while (then := w.core.next_deadline()) is not None:
        assert then > w.now, "a group that is looked at again and again"
        w.now = then
        w.run()
        wakes += 1
        assert wakes < 20
    assert w.frames_used() == 20
    assert not w.group.touched
    w.now += 1000.0
    assert w.plan() is None
    assert all(len(spill.blocks) <= 2 for plan in w.plans for spill in plan.spills)


def test_plans_that_only_spill_follow_one_another() -> None:
    w = Tiered(disk(write=STEP_SECONDS / 4))
    w.submit("a", prompt(20), max_tokens=1)
    w.run()
    then = w.core.next_deadline()
    assert then is not None
    w.now = then
    plan = w.planned()
    assert plan.spills
    assert plan == replace(Plan(plan.epoch, plan.step, digest=plan.digest), spills=plan.spills)
    assert w.plan() is None  # the window has room for one more


def test_a_block_that_is_copied_is_not_granted_until_its_step_has_settled() -> None:
    w = Tiered(num_blocks=16, max_seqs=2)
    w.submit("a", prompt(8), max_tokens=1)
    w.plan()
    w.settle()
    copied = w.planned()
    assert len(copied.spills[0].blocks) == 8
    assert w.group.stats().blocks_free == 8
    w.submit("b", prompt(11, 1), max_tokens=1)
    assert w.plan() is None  # it waits for the blocks in flight
    w.settle()
    granted = w.planned()
    assert [a.request_id for a in granted.admissions] == ["b"]


def test_copies_leave_free_blocks_to_what_runs() -> None:
    w = Tiered(num_blocks=24)
    w.submit("a", prompt(8), max_tokens=1)
    w.submit("row", prompt(1, 1), max_tokens=8)
    w.plan()
    w.settle()
    plan = w.planned()
    assert plan.released == (0,)
    assert spilled(plan) == 22 // 4 + 1  # a block that the row owns is no free one
    w.run()
    assert w.frames_used() == 9


def test_a_block_that_is_granted_anew_is_moved_out_by_the_same_plan() -> None:
    w = Tiered(disk(write=1.0), num_blocks=8, max_seqs=1)  # so slow that hardly any is written behind
    w.submit("a", prompt(6), max_tokens=1)
    w.run()
    assert w.frames_used() == 1
    w.submit("b", prompt(7, 1), max_tokens=1)
    moved = w.planned()
    (grant,) = moved.grants
    (spill,) = moved.spills
    assert len(spill.blocks) == 5
    assert set(spill.blocks) < set(grant.blocks)


def test_a_tier_that_does_not_pay_gets_nothing() -> None:
    w = Tiered(disk(read=1.0))
    w.submit("a", prompt(6), max_tokens=1)
    w.run()
    w.evict()
    assert w.frames_used() == 0
    assert w.core.next_deadline() is None
    w.now += 1000.0
    assert w.plan() is None


def test_a_lost_frame_is_not_written_again_and_again() -> None:
    w = Tiered()
    w.submit("a", prompt(6), max_tokens=8)
    w.plan()
    w.settle()
    (spill,) = w.planned().spills
    w.settle(lost=(Frames(0, spill.frames),))
    assert w.frames_used() == 0
    w.run()
    assert w.frames_used() == 0
    (tier,) = w.group.stats().tiers
    assert (tier.blocks_spilled, tier.frames_lost) == (6, 6)


def test_a_tier_smaller_than_the_blocks_does_not_copy_them_for_ever() -> None:
    w = Tiered(disk(3))
    w.submit("a", prompt(12), max_tokens=2)
    w.run()
    (tier,) = w.group.stats().tiers
    assert tier.frames_used == 3
    assert tier.blocks_spilled <= 12


@pytest.mark.parametrize("outputs", [1, 4])  # written with its release, or before
def test_what_a_tier_has_of_a_request_goes_from_its_end(outputs: int) -> None:
    w = Tiered(disk(6), num_blocks=32)
    w.submit("first", prompt(6), max_tokens=outputs)
    w.run()
    (spill,) = [spill for plan in w.plans for spill in plan.spills]
    w.submit("other", prompt(3, 1), max_tokens=1)
    w.run()
    directory = w.group.ledger.tiers.directories[0]
    assert [key in directory for key in spill.keys] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(("frames", "first"), [(20, 15), (24, 19)])
def test_so_does_what_was_written_after_the_request_was_over(frames: int, first: int) -> None:
    w = Tiered(disk(frames, write=STEP_SECONDS / 4))
    w.submit("first", prompt(20), max_tokens=1)
    w.run()
    assert w.frames_used() < 10
    _write_all(w)
    w.submit("other", prompt(5, 1), max_tokens=1)
    w.run()
    _write_all(w)
    key_of = w.group.ledger.pool.key_of
    directory = w.group.ledger.tiers.directories[0]
    assert [key_of(block) in directory for block in range(20)] == [True] * first + [False] * (20 - first)


def _write_all(w: Tiered) -> None:
    while (then := w.core.next_deadline()) is not None:
        w.now = then
        w.run()


def test_steps_that_run_nothing_are_no_measure_of_speed() -> None:
    w = Tiered(known=False)
    w.plan()
    w.group.settle(StepResult(3, 1, contents_end=True), 1e-6)
    assert w.group.speed.step_seconds == STEP_SECONDS


def test_a_tier_without_frames_is_left_alone() -> None:
    w = Tiered(disk(0))
    w.submit("a", prompt(6), max_tokens=2)
    w.run()
    assert w.core.next_deadline() is None
    assert all(plan.spills == () for plan in w.plans)


def test_the_kv_of_a_request_that_ended_with_an_error_is_forgotten() -> None:
    w = Tiered()
    w.submit("a", prompt(6), max_tokens=8)
    w.plan()
    w.settle()
    w.plan()
    assert w.frames_used() == 6
    w.settle(error=True)
    assert w.frames_used() == 0
    w.run()
    w.submit("b", prompt(6))
    assert w.planned().admissions[0].num_cached == 0


def test_each_tier_gets_what_it_has_not() -> None:
    w = Tiered(TierShape("host", 64, 1e-6, 1e-6), disk(write=STEP_SECONDS / 8))
    w.submit("a", prompt(8), max_tokens=6)
    w.plan()
    w.settle()
    plan = w.planned()
    assert [(spill.tier, len(spill.blocks)) for spill in plan.spills] == [(0, 8), (1, 4)]


@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_a_prefix_that_was_evicted_comes_back(window: int) -> None:
    w = Tiered(num_blocks=16, max_seqs=2, window=window)
    w.submit("a", prompt(6), max_tokens=1)
    w.run()
    w.evict()
    w.submit("b", prompt(6), max_tokens=1)
    plan = w.planned()
    assert plan.admissions[0].num_cached == 6 * 16
    assert sum(len(fetch.blocks) for fetch in plan.fetches) == 6 - len(plan.grants[0].blocks) + 7
    w.run()
