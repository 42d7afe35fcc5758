"""Moments at which a block would be used too early: each needs several things to coincide."""

from __future__ import annotations

import pytest

from albireo.contract.plan import Finish, GroupShape
from albireo.contract.tiers import TierShape
from scheduler_svc.core import Limits, Speed

from .samples import prompt
from .world import World


def tiered(*, read_block_seconds: float) -> World:
    """A world whose group has a disk, and knows what it holds."""
    w = World(Limits(64, 4, 64, max_in_flight=3, digest_every=1), followed=True)
    tiers = (TierShape("disk", 20, read_block_seconds, 0.0),)
    speed = Speed(step_seconds=1e-3, prefill_token_seconds=1e-2)
    w.join("g0", GroupShape(12, 4, 160, tiers), speed=speed)
    w.step()
    return w


def run_and_forget(w: World, name: str, tokens: tuple[int, ...]) -> None:
    """A request runs, and others after it take its blocks, so that only the tier has them."""
    w.submit(name, tokens, max_tokens=2, ignore_eos=True)
    w.drain(40)
    w.submit(f"{name}, others", prompt(150, 3), max_tokens=2, ignore_eos=True)
    w.drain(40)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("steps", range(5))
def test_branches_share_no_block_before_its_fetch_has_settled(fails: bool, steps: int) -> None:
    w = tiered(read_block_seconds=1e-5)
    run_and_forget(w, "first", prompt(70))
    w.worker.tiers.faults.fetches = int(fails)
    w.submit("back", prompt(70), max_tokens=4, ignore_eos=True, n=3)
    for _ in range(steps):
        w.plan()
        w.group.read()
    w.drain(60)
    assert {w.stories[f"back#{branch}"].final for branch in range(3)} == {Finish.LENGTH}
    [tier] = w.group.core.stats().tiers
    assert tier.blocks_fetched > 0
    assert tier.fetches_failed == fails


@pytest.mark.parametrize("read", [False, True])
def test_blocks_of_a_fetch_that_is_cancelled_are_granted_once_its_plan_has_settled(read: bool) -> None:
    w = tiered(read_block_seconds=0.1)
    run_and_forget(w, "first", prompt(70))
    w.submit("runs", prompt(5, 2), max_tokens=100, ignore_eos=True)
    w.step()
    w.submit("back", prompt(70), max_tokens=4, ignore_eos=True)
    plan = w.plan()
    assert plan is not None
    assert plan.fetches
    assert not any(chunk.slot == plan.fetches[0].slot for chunk in plan.chunks)  # it would make others wait
    if read:
        w.group.read()
    w.cancel("back")
    w.submit("next", prompt(100, 1), max_tokens=4, ignore_eos=True)
    w.plan()
    w.drain(150)
    assert w.stories["next"].final is Finish.LENGTH
