"""What becomes of fetches that fail or are given up, and of what a group reports of its tiers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.contract.plan import Plan
from albireo.contract.tiers import Contents, Frames, TierRead
from scheduler_svc.core import ProtocolError

from .tiered import STEP_SECONDS, Tiered, all_spills, disk, evicted, fetched, keys, prompt, running


def test_a_branch_whose_fetch_fails_is_first_again() -> None:
    w = evicted()
    w.submit("a", prompt(6), n=2)
    (admission,) = w.planned().admissions
    w.settle(unfetched=(admission.incarnation,))
    plan = w.planned()
    assert [(a.request_id, a.num_cached) for a in plan.admissions] == [(admission.request_id, 0)]
    assert len(w.planned().admissions) == 1  # the other, when its prompt is computed
    w.run()


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_request_whose_fetch_failed_is_computed(window: int) -> None:
    w = evicted(window=window)
    w.submit("again", prompt(6), max_tokens=3)
    (admission,) = w.planned().admissions
    for _ in range(window - 1):
        w.planned()
    w.settle(unfetched=(admission.incarnation,))
    assert w.frames_used() > 0
    assert not any(key in w.group.ledger.tiers.directories[0] for key in keys(w, 6))
    plan = w.planned()
    assert plan.released == (admission.slot,)
    (again,) = plan.admissions
    assert (again.request_id, again.num_cached, fetched(plan)) == ("again", 0, 0)
    for _ in range(window - 1):
        w.settle()
    assert w.group.stats().blocks_cached <= 32
    w.run()
    (tier,) = w.group.stats().tiers
    assert tier.fetches_failed == 1
    assert w.group.stats().late_rows == 0
    assert w.group.stats().preemptions == 0


def test_nothing_is_cached_that_was_computed_from_what_did_not_come() -> None:
    w = evicted()
    w.submit("again", prompt(6, more=15), max_tokens=20)
    (admission,) = w.planned().admissions
    w.planned()  # its first row, which fills the seventh block
    w.settle(unfetched=(admission.incarnation,))
    w.core.cancel("again")
    w.follower.cancel("again")
    cached = w.group.stats().blocks_cached
    w.settle()
    assert w.group.stats().blocks_cached == cached


def test_neither_is_a_chunk_of_the_same_step() -> None:
    w = evicted()
    w.submit("again", prompt(9))
    (admission,) = w.planned().admissions
    assert admission.num_cached == 96
    cached = w.group.stats().blocks_cached
    w.settle(unfetched=(admission.incarnation,))
    assert w.group.stats().blocks_cached == cached
    w.run()


def test_the_fetch_of_a_request_that_was_cancelled_may_fail_as_well() -> None:
    w = evicted()
    w.submit("again", prompt(6))
    (admission,) = w.planned().admissions
    w.core.cancel("again")
    assert w.planned().released == (admission.slot,)
    cached = w.group.stats().blocks_cached
    w.settle(unfetched=(admission.incarnation,))
    assert w.group.stats().blocks_cached == cached
    w.run()
    assert w.group.stats().blocks_free == 32


def test_a_request_that_is_cancelled_before_its_fetch_was_read_gives_its_frames_back() -> None:
    w = running(read=STEP_SECONDS / 3)
    plan = w.planned()
    (fetch,) = plan.fetches
    directory = w.group.ledger.tiers.directories[0]
    assert directory.pins == dict.fromkeys(fetch.frames, 1)
    w.core.cancel("again")
    assert w.planned().released == (fetch.slot,)
    assert directory.pins  # the blocks may be written until the step of the fetch has settled
    assert not set(fetch.blocks) & set(w.group.ledger.pool.next_free(32))
    w.settle()
    assert not directory.pins
    assert set(fetch.blocks) <= set(w.group.ledger.pool.next_free(32))
    assert not any(w.group.ledger.pool.find(key) for key in fetch.keys)
    w.settle()


def test_a_request_that_is_preempted_before_its_fetch_was_read_is_fetched_again() -> None:
    w = Tiered(disk(read=STEP_SECONDS / 3), num_blocks=12)
    w.submit("first", prompt(6), max_tokens=1)
    w.run()
    w.evict()
    w.now += 100.0
    w.submit("row", prompt(2, 5, more=12), max_tokens=100)
    w.plan()
    w.settle()
    w.submit("again", prompt(6), max_tokens=20)
    assert fetched(w.planned()) == 6
    fetches = 0
    for _ in range(200):
        plan = w.plan()
        if not w.in_flight:
            break
        fetches += plan is not None and fetched(plan) > 0
        w.settle()
    assert w.group.stats().preemptions > 0
    assert fetches > 0
    assert not w.core.stats().running


def test_frames_that_are_read_are_not_written() -> None:
    w = Tiered(disk(8), num_blocks=32)
    w.submit("first", prompt(6), max_tokens=1)
    w.run()
    w.submit("large", prompt(31, 1), max_tokens=1)
    w.plan()  # all blocks are granted anew
    w.settle()
    w.submit("again", prompt(6), max_tokens=40)
    for _ in range(60):
        plan = w.plan()
        pinned = set(w.group.ledger.tiers.directories[0].pins)
        if plan is not None and not plan.fetches:
            assert not pinned & {frame for spill in plan.spills for frame in spill.frames}
        if not w.in_flight:
            break
        w.settle()


def test_the_group_is_asked_what_its_tiers_hold_before_it_takes_requests() -> None:
    w = evicted()
    (spill, *_) = all_spills(w)
    known = Tiered(num_blocks=32, known=False)
    known.submit("again", prompt(6))
    for last in (False, True):
        plan = known.planned()
        assert plan == Plan(plan.epoch, plan.step, digest=plan.digest)
        assert known.plan() is None, "a second one in flight"
        half = slice(0, 3) if not last else slice(3, 6)
        known.settle(contents=(Contents(0, spill.frames[half], spill.keys[half]),), contents_end=last)
    plan = known.planned()
    assert fetched(plan) == 6
    known.run()


def test_what_a_group_reports_later_is_not_taken_for_contents() -> None:
    w = evicted()
    used = w.frames_used()
    w.submit("row", prompt(1, 7), max_tokens=4)
    w.plan()
    w.settle(contents=(Contents(0, (63,), (b"k" * 16,)),), contents_end=True)
    assert w.frames_used() == used


@pytest.mark.parametrize(
    "report",
    [
        {"lost": (Frames(1, (0,)),)},
        {"lost": (Frames(0, (64,)),)},
        {"read": (TierRead(3, 1, 0.1),)},
        {"contents": (Contents(0, (0, 0), (b"a" * 16, b"b" * 16)),)},
        {"contents": (Contents(2, (0,), (b"a" * 16,)),)},
        {"contents": (Contents(0, (64,), (b"a" * 16,)),)},
    ],
)
def test_what_no_group_reports(report: dict[str, tuple[Frames, ...]]) -> None:
    w = Tiered(known=False)
    w.plan()
    with pytest.raises(ProtocolError):
        w.settle(**report)  # type: ignore[arg-type]


def test_only_a_slot_with_a_fetch_can_lack_it() -> None:
    w = Tiered()
    w.submit("a", prompt(2))
    w.plan()
    with pytest.raises(ProtocolError, match="fetched none"):
        w.settle(unfetched=(1,))


def test_an_incarnation_that_is_not_there_can_lack_what_it_will() -> None:
    w = Tiered()
    w.submit("a", prompt(2))
    w.plan()
    w.settle(unfetched=(77,))
    w.run()


def test_a_plan_that_does_not_fit_the_directory_is_refused() -> None:
    w = evicted()
    w.submit("again", prompt(6))
    w.core.place()
    plan = w.group.plan(w.now)
    assert plan is not None
    (fetch,) = plan.fetches
    with pytest.raises(ProtocolError, match="holds something else"):
        w.following.apply(replace(plan, fetches=(fetch._replace(frames=fetch.frames[::-1]),)))


@pytest.mark.parametrize("change", [{"tier": 4}, {"keys": (b"x" * 16,)}, {"blocks": (99,)}])
def test_a_plan_that_spills_what_is_not_there_is_refused(change: dict[str, object]) -> None:
    w = Tiered(num_blocks=32)
    w.submit("a", prompt(1), max_tokens=4)
    w.plan()
    w.settle()
    plan = w.group.plan(w.now)
    assert plan is not None
    (spill,) = plan.spills
    with pytest.raises(ProtocolError):
        w.following.apply(replace(plan, spills=(spill._replace(**change),)))  # type: ignore[arg-type]


def test_a_request_goes_on_elsewhere_when_its_group_leaves_with_its_fetch_in_flight() -> None:
    w = evicted()
    w.submit("again", prompt(6))
    assert fetched(w.planned()) == 6
    shape = replace(w.shape, tiers=())
    other = w.core.join("other", shape)
    w.core.leave(w.group, died=True)
    w.core.place()
    plan = other.plan(w.now)
    assert plan is not None
    assert [(a.request_id, a.num_cached) for a in plan.admissions] == [("again", 0)]
    assert w.core.check_integrity() == []


def test_a_group_that_has_a_prefix_in_a_tier_is_preferred() -> None:
    w = evicted()
    other = w.core.join("other", w.shape)
    assert other.plan(w.now) is not None
    w.submit("again", prompt(6))
    w.core.place()
    assert w.group.stats().placed == 1


def test_no_request_is_placed_on_a_group_whose_tiers_are_not_known() -> None:
    w = Tiered(num_blocks=32)
    other = w.core.join("other", w.shape)
    for number in range(8):
        w.submit(f"r{number}", prompt(2, number))
    w.core.place()
    assert other.stats().placed == 0
    assert w.group.stats().placed == 4
