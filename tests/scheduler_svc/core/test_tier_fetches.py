"""What is fetched from the tiers, and when a slot computes whose prefix is on the way."""

from __future__ import annotations

from albireo.contract.tiers import Fetch, TierRead, TierShape
from scheduler_svc.core.prefix import lends

from .tiered import STEP_SECONDS, Tiered, disk, evicted, fetched, keys, prompt, running


def test_the_blocks_of_a_prefix_that_a_tier_holds_are_filled_from_it() -> None:
    w = evicted()
    w.submit("again", prompt(6))
    plan = w.planned()
    (admission,), (fetch,), (grant,), (chunk,) = plan.admissions, plan.fetches, plan.grants, plan.chunks
    assert admission.num_cached == 96
    assert (fetch.slot, fetch.tier, len(fetch.blocks)) == (admission.slot, 0, 6)
    assert sorted(fetch.keys) == sorted(keys(w, 6))
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


def test_a_slot_that_has_begun_goes_on() -> None:
    w = evicted(disk(read=0.57 * STEP_SECONDS), window=4, chunk=16)
    w.submit("row", prompt(0, 5), max_tokens=60)
    w.plan()
    w.settle()
    for _ in range(3):
        w.plan()
    w.submit("again", prompt(9))
    assert len(w.planned().chunks) == 1
    for _ in range(3):  # sooner than expected
        w.settle()
    assert len(w.planned().chunks) == 1
    w.settle()
    w.run()


def test_no_branch_shares_what_may_not_come() -> None:
    w = evicted()
    w.submit("a", prompt(6))
    w.plan()
    occupancy = w.group.ledger.occupied[0]
    assert not lends(occupancy, 6)
    w.settle()
    assert lends(occupancy, 6)


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
