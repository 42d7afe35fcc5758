"""What is fetched from the tiers, when a slot computes whose prefix is on the way, and what does not come."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.contract.plan import Plan
from albireo.contract.tiers import Contents, Fetch, Frames, Spill, TierRead, TierShape
from scheduler_svc.core import ProtocolError

from .tiered import STEP_SECONDS, Tiered, disk, prompt


def evicted(*tiers: TierShape, blocks: int = 6, num_blocks: int = 32, window: int = 2) -> Tiered:
    """The blocks of prompt(blocks) are in the fastest tier, and hold something else."""
    w = Tiered(*tiers, num_blocks=num_blocks, window=window)
    w.submit("first", prompt(blocks), max_tokens=1)
    w.run()
    w.evict()
    w.now += 100.0
    assert all(w.group.ledger.pool.find(key) is None for key in keys(w, blocks))
    return w


def keys(w: Tiered, blocks: int) -> list[bytes]:
    """Of the blocks of prompt(blocks)."""
    found = [key for spill in all_spills(w) for key in spill.keys]
    assert len(found) >= blocks
    return found[:blocks]


def all_spills(w: Tiered) -> list[Spill]:
    return [spill for plan in w.plans for spill in plan.spills]


def fetched(plan: Plan) -> int:
    return sum(len(fetch.blocks) for fetch in plan.fetches)


def test_the_blocks_of_a_prefix_that_a_tier_holds_are_filled_from_it() -> None:
    w = evicted()
    w.submit("again", prompt(6))
    plan = w.planned()
    (admission,), (fetch,), (grant,), (chunk,) = plan.admissions, plan.fetches, plan.grants, plan.chunks
    assert admission.num_cached == 96
    assert (fetch.slot, fetch.tier, len(fetch.blocks)) == (admission.slot, 0, 6)
    assert list(fetch.keys) == keys(w, 6)
    assert grant.blocks[:6] == fetch.blocks
    assert (chunk.start, chunk.count) == (96, 4)  # nothing else runs, so that it may wait
    w.run()
    (tier,) = w.group.stats().tiers
    assert (tier.blocks_fetched, tier.prefix_hit_tokens) == (6, 96)
    assert w.group.stats().prefix_hit_tokens == 96


def test_nothing_is_fetched_that_takes_less_to_compute() -> None:
    w = evicted()
    w.submit("again", prompt(6))
    for _ in range(200):  # it has become slow
        w.group.times.observe(TierRead(0, 1, 1.0))
        w.following.times.observe(TierRead(0, 1, 1.0))
    assert w.planned().admissions[0].num_cached == 0
    w.run()
    w.evict(98)
    w.now += 61.0  # it is tried again after a minute
    w.submit("once more", prompt(6))
    assert fetched(w.planned()) > 0


def test_a_prefix_is_put_together_from_blocks_and_frames() -> None:
    w = Tiered(num_blocks=32)
    w.submit("first", prompt(6), max_tokens=1)
    w.run()
    w.submit("other", prompt(27, 1), max_tokens=1)  # takes the last blocks of the first
    w.run()
    w.submit("again", prompt(6))
    plan = w.planned()
    (fetch,) = plan.fetches
    assert 0 < len(fetch.blocks) < 6
    assert plan.admissions[0].num_cached == 96
    assert plan.grants[0].blocks[6 - len(fetch.blocks) : 6] == fetch.blocks
    w.run()


def test_the_fastest_tier_that_has_a_block_gives_it() -> None:
    w = evicted(TierShape("host", 64, 1e-6, 1e-6), disk())
    w.submit("again", prompt(6))
    assert [fetch.tier for fetch in w.planned().fetches] == [0]


def running(read: float, *, window: int = 2) -> Tiered:
    """A row decodes, and a request whose prefix takes ``read`` a block waits. Nothing is in flight."""
    w = evicted(disk(read=read), window=window)
    w.submit("row", prompt(1, 5), max_tokens=60)
    w.plan()
    w.settle()
    w.submit("again", prompt(6))
    return w


def test_a_chunk_is_in_the_same_plan_if_its_fetch_is_there_in_time() -> None:
    w = running(read=STEP_SECONDS / 20)  # 6 blocks in 0.3 steps
    plan = w.planned()
    assert (fetched(plan), len(plan.chunks)) == (6, 1)


def test_a_chunk_waits_for_a_slow_fetch_while_others_run() -> None:
    w = running(read=STEP_SECONDS / 7)  # 6 blocks in 0.86 steps
    plan = w.planned()
    assert (fetched(plan), plan.chunks, plan.num_decodes) == (6, (), 1)
    assert plan.grants[-1].blocks == plan.fetches[0].blocks
    w.settle()
    w.now += 0.3 * STEP_SECONDS
    plan = w.planned()  # will begin at once: 0.56 steps too early, and half a step is allowed
    assert (plan.fetches, plan.chunks) == ((), ())
    plan = w.planned()  # will begin when that has run
    assert len(plan.chunks) == 1
    w.settle()
    w.settle()
    w.run()


def test_with_more_plans_in_flight_a_step_begins_later() -> None:
    w = running(read=STEP_SECONDS / 3, window=4)  # 6 blocks in 2 steps
    plans = [w.planned() for _ in range(4)]
    assert [len(plan.chunks) for plan in plans] == [0, 0, 1, 0]
    assert plans[3].num_decodes == 2


def test_fetches_follow_one_another() -> None:
    w = evicted(disk(read=STEP_SECONDS / 13), blocks=12)
    w.submit("row", prompt(1, 5), max_tokens=60)
    w.plan()
    w.settle()
    w.submit("a", prompt(6))
    w.submit("b", prompt(6))
    plan = w.planned()
    assert [fetched(plan), len(plan.chunks)] == [12, 1]


def test_a_slot_whose_fetch_is_late_runs_when_the_others_have_ended() -> None:
    w = evicted(disk(read=1e-3))
    w.submit("row", prompt(1, 5), max_tokens=3)
    w.plan()
    w.settle()
    w.submit("again", prompt(6))
    w.group.times.fetch([Fetch(0, 0, (0,) * 1000, (), ())], w.now)  # others come before it
    chunks = []
    for _ in range(4):
        plan = w.planned()
        chunks.append((plan.num_decodes, len(plan.chunks)))
        w.settle()
    assert chunks == [(1, 0), (1, 0), (0, 1), (1, 0)]


def test_a_core_that_takes_over_does_not_wait_for_what_it_did_not_ask_for() -> None:
    w = running(read=STEP_SECONDS / 2)
    assert w.planned().chunks == ()
    w.promote()
    assert len(w.planned().chunks) == 1
    w.run()


def test_a_fetched_block_is_shared_once_a_step_has_read_it() -> None:
    w = evicted()
    w.submit("a", prompt(6))
    w.plan()
    w.submit("b", prompt(6))
    plan = w.planned()
    assert fetched(plan) == 6  # once more, into blocks of its own
    w.settle()
    w.submit("c", prompt(6))
    plan = w.planned()
    assert fetched(plan) == 0
    assert plan.admissions[0].num_cached == 96
    assert len(plan.grants[-1].blocks) == 7
    w.run()


def test_branches_are_held_until_the_fetch_of_the_first_is_there() -> None:
    w = evicted()
    w.submit("a", prompt(6), n=3)
    assert len(w.planned().admissions) == 1
    assert w.planned().admissions == ()
    w.settle()
    plan = w.planned()
    assert len(plan.admissions) == 2
    assert fetched(plan) == 0
    assert all(admission.num_cached == 96 for admission in plan.admissions)
    w.run()


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
    "told",
    [
        {"lost": (Frames(1, (0,)),)},
        {"lost": (Frames(0, (64,)),)},
        {"read": (TierRead(3, 1, 0.1),)},
        {"contents": (Contents(0, (0, 0), (b"a" * 16, b"b" * 16)),)},
        {"contents": (Contents(2, (0,), (b"a" * 16,)),)},
        {"contents": (Contents(0, (64,), (b"a" * 16,)),)},
    ],
)
def test_what_no_group_reports(told: dict[str, tuple[Frames, ...]]) -> None:
    w = Tiered(known=False)
    w.plan()
    with pytest.raises(ProtocolError):
        w.settle(**told)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("change", [{"tier": 4}, {"keys": (b"x" * 16,)}, {"blocks": (31,)}, {"blocks": (99,)}])
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
