"""A core that follows another one by its plans: the same state at every moment, and able to take over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from albireo.contract.plan import Admission, Chunk, Ended, Finish, Grant, Plan, SamplingParams, Submission
from scheduler_svc.core import GroupCore, ProtocolError

from .auditor import EPOCH
from .followers import folded
from .machine import CoreMachine, explore
from .samples import prompt
from .world import World, world


class FollowingMachine(CoreMachine):
    """The follower is compared after every rule, and takes over now and then.

    It knows of submissions that cannot run, as they come by the inbox. Cancellations and lost gateways are
    known to the core that makes the plans alone, or to both.
    """

    max_in_flight = 4
    max_groups = 3
    followed = True

    @rule(n=st.integers(1, 3))
    def refuse(self, n: int) -> None:
        self.world.refuse(f"refused{len(self.world.stories)}", n=n)

    @rule(back=st.integers(0, 6))
    def cancel_on_both(self, back: int) -> None:
        name = f"r{len(self.world.submitted) - 1 - back}"
        if self.world.cancel(name):
            assert self.world.follower
            self.world.follower.cancel(name)

    @rule(gateway=st.sampled_from(["g1", "g2"]))
    def abandon(self, gateway: str) -> None:
        self.world.abandon(gateway)

    @precondition(lambda self: any(story.open for story in self.world.stories.values()))
    @rule(back=st.integers(0, 6))
    def fail(self, back: int) -> None:
        names = [name for name, story in self.world.stories.items() if story.open]
        self.world.fail(names[-1 - back % len(names)])

    @rule()
    def promote(self) -> None:
        self.world.promote()


TestFollowing = explore(FollowingMachine)


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_a_follower_has_the_same_state_after_every_plan_and_result(ahead: int) -> None:
    """Few blocks, so that requests are paused, preempted and computed again."""
    w = world(num_blocks=6, max_model_len=96, ahead=ahead, followed=True)
    w.submit("a", prompt(15), max_tokens=40, ignore_eos=True)
    w.submit("b", prompt(30, 1), max_tokens=40, ignore_eos=True, n=2)
    w.drain(300)
    assert w.core.stats().preemptions > 0
    assert any(plan.paused for plan in w.plans)


@pytest.mark.parametrize("steps", range(1, 12, 2))
def test_a_follower_takes_over_between_any_two_plans(steps: int) -> None:
    w = world(num_blocks=6, max_model_len=96, ahead=2, followed=True)
    w.submit("a", prompt(15), max_tokens=40, ignore_eos=True)
    w.submit("b", prompt(30, 1), max_tokens=20, ignore_eos=True, n=2, timeout_s=5.0)
    for _ in range(steps):
        w.step()
    w.promote()
    w.advance(5.0)
    w.drain(300)
    assert w.stories["a"].final is Finish.LENGTH
    assert {w.stories[name].final for name in ("b#0", "b#1")} == {Finish.DEADLINE}


def test_a_plan_that_is_not_made_changes_nothing() -> None:
    """A finished request keeps its slot until a plan releases it."""
    w = world(ahead=2, max_seqs=1)
    w.submit("a", prompt(10), max_tokens=2, ignore_eos=True)
    w.plan()
    w.plan()
    w.run()
    w.settle()
    before = folded(w.core)
    assert w.plan() is None  # nothing but the release, with a step in flight
    assert folded(w.core) == before
    assert w.core.stats().running == 1
    w.drain(5)


def test_a_cancellation_changes_nothing_until_a_plan_announces_it() -> None:
    w = world(max_seqs=1)
    w.submit("a", prompt(40), max_tokens=5, n=3)
    w.plan()
    before = folded(w.core)
    w.cancel("a")
    assert folded(w.core) == before
    assert w.core.snapshot().ending == dict.fromkeys(("a#0", "a#1", "a#2"), Finish.CANCELLED)
    assert w.core.stats().waiting == 0
    w.run()
    w.settle()
    w.drain(5)


def test_a_follower_announces_a_cancellation_only_if_no_plan_has() -> None:
    w = world(followed=True)
    assert w.follower
    for name in "ab":
        w.submit(name, prompt(10), max_tokens=20, ignore_eos=True)
        w.follower.cancel(name)
    w.cancel("a")
    w.step()
    w.promote()
    w.stories["b"].cancelled = True
    w.drain(10)
    assert w.ended() == [
        Ended("a", Finish.CANCELLED),
        Ended("b", Finish.CANCELLED),
    ]


def followed_and_next_plan() -> tuple[World, GroupCore, Plan]:
    """A follower, and the plan that it is to apply next: slots 0 and 1 decode, slot 0 gets a block, and "c"
    is admitted to slot 2 with two cached blocks."""
    w = world(num_blocks=16, max_model_len=96, chunk=64, followed=True)
    w.submit("a", prompt(31), max_tokens=30, ignore_eos=True)
    w.submit("b", prompt(40, 1), max_tokens=30, ignore_eos=True)
    w.step()
    w.step()
    w.submit("c", (*prompt(40, 1), 1), max_tokens=5)
    follower, w.group.follower = w.group.follower, None
    w.core.place()
    plan = w.group.plan(w.now)
    assert follower
    assert plan is not None
    return w, follower, plan


def test_the_plan_that_is_spoiled_below_is_applied_as_it_is() -> None:
    w, follower, plan = followed_and_next_plan()
    assert (len(plan.grants), len(plan.admissions), len(plan.chunks), plan.num_decodes) == (2, 1, 1, 2)
    assert plan.admissions[0].num_cached == 32
    follower.apply(plan)
    assert follower.snapshot() == w.group.core.snapshot()


@pytest.mark.parametrize(("epoch", "step"), [(EPOCH + 1, 3), (EPOCH, 2), (EPOCH, 4)])
def test_a_plan_that_is_not_the_next_one_is_refused_and_nothing_changes(epoch: int, step: int) -> None:
    w, follower, plan = followed_and_next_plan()
    before = follower.snapshot()
    with pytest.raises(ProtocolError, match="not the next"):
        follower.apply(replace(plan, epoch=epoch, step=step))
    assert follower.snapshot() == before
    follower.apply(plan)
    assert follower.snapshot() == w.group.core.snapshot()


def admitted(plan: Plan, **changes: object) -> Plan:
    return replace(plan, admissions=(replace(plan.admissions[0], **changes),))  # type: ignore[arg-type]


def granted(plan: Plan, index: int, *blocks: int) -> Plan:
    grants = list(plan.grants)
    grants[index] = Grant(grants[index].slot, blocks)
    return replace(plan, grants=tuple(grants))


def also_admitted(plan: Plan, request_id: str) -> Plan:
    more = Admission(3, 9, request_id, prompt(5), 0, 0, SamplingParams(max_tokens=1, seed=0))
    return replace(plan, admissions=(*plan.admissions, more))


SPOILED: dict[str, Callable[[Plan], Plan]] = {
    "a slot is released that is free": lambda plan: replace(plan, released=(3,)),
    "a slot is released twice": lambda plan: replace(plan, released=(0, 0)),
    "a slot is paused that is free": lambda plan: replace(plan, paused=(3,)),
    "a slot is resumed that is not paused": lambda plan: replace(plan, resumed=(1,)),
    "a slot is admitted to that is taken": lambda plan: admitted(plan, slot=1),
    "a slot is admitted to that does not exist": lambda plan: admitted(plan, slot=4),
    "an incarnation comes again": lambda plan: admitted(plan, incarnation=2),
    "other tokens are admitted": lambda plan: admitted(plan, tokens=prompt(41, 2)),
    "a part of a block is cached": lambda plan: admitted(plan, num_cached=8),
    "all tokens are cached": lambda plan: admitted(plan, num_cached=48),
    "a request is admitted that is unknown": lambda plan: also_admitted(plan, "unknown"),
    "a request is admitted that runs": lambda plan: also_admitted(plan, "a"),
    "a block is granted that has an owner": lambda plan: granted(plan, 0, *plan.grants[1].blocks[:1]),
    "a block is granted that does not exist": lambda plan: granted(plan, 0, 16),
    "a block is granted twice": lambda plan: granted(plan, 0, *plan.grants[0].blocks, *plan.grants[0].blocks),
    "a block is shared that holds nothing": lambda plan: granted(plan, 1, 15, 14, 13),
    "a slot gets blocks that is free": lambda plan: replace(plan, grants=(Grant(3, (15,)),)),
    "a chunk is left out": lambda plan: replace(plan, chunks=(Chunk(2, 33, 8),)),
    "a chunk is empty": lambda plan: replace(plan, chunks=(Chunk(2, 32, 0),)),
    "a chunk is longer than the tokens": lambda plan: replace(plan, chunks=(Chunk(2, 32, 10),)),
    "a chunk has no block": lambda plan: granted(plan, 1, *plan.grants[1].blocks[:2]),
    "a slot prefills that decodes": lambda plan: replace(plan, chunks=(Chunk(0, 31, 1),)),
    "a request is ended that is unknown": lambda plan: replace(
        plan, ended=(Ended("unknown", Finish.CANCELLED),)
    ),
    "a row has no block": lambda plan: replace(plan, grants=plan.grants[1:]),
    "another number of rows is said to decode": lambda plan: replace(plan, num_decodes=1),
    "another digest is said to come out": lambda plan: replace(plan, digest=(plan.digest or 0) ^ 1),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_plan_that_does_not_fit_the_state_is_an_error(what: str) -> None:
    _, follower, plan = followed_and_next_plan()
    with pytest.raises(ProtocolError):
        follower.apply(SPOILED[what](plan))


def test_a_follower_may_know_more_requests_than_the_plan_was_made_with() -> None:
    w, follower, plan = followed_and_next_plan()
    later = Submission("later", prompt(20, 3), SamplingParams(max_tokens=5, seed=0))
    assert w.follower
    w.follower.submit(later, w.now)
    follower.apply(plan)
    w.core.submit(later, w.now)
    assert folded(w.follower) == folded(w.core)


def test_a_request_that_was_refused_may_be_unknown_to_a_follower() -> None:
    w = world(followed=True)
    assert w.follower
    w.core.refuse(Submission("r", (), SamplingParams(max_tokens=1, seed=0), n=2))
    w.follower.apply_ended(w.core.take_ended())
    w.check()
