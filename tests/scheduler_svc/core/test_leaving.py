"""Groups that leave or die: their requests go on elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.contract.plan import Ended, Finish, GroupShape
from scheduler_svc.core import ProtocolError, WaitingEnd

from .samples import prompt
from .test_placement import homes
from .world import World, world

SHAPE = GroupShape(64, 4, 256)


@pytest.mark.parametrize("died", [True, False])
@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_requests_go_on_from_their_next_token(ahead: int, died: bool) -> None:
    """The auditor compares the tokens of each admission, and the reader the outputs with those of a solo
    run."""
    w = world(groups=2, ahead=ahead, followed=True)
    for number in range(6):
        w.submit(f"r{number}", prompt(20, number), max_tokens=30, ignore_eos=True)
    for _ in range(5):
        w.step()
    before = {name: len(story.read) for name, story in w.stories.items()}
    moved = [name for name, home in homes(w).items() if home == ["g0"]]
    w.leave("g0", died=died)
    w.drain(100)
    again = {a.request_id: a for plan in w.plans for a in plan.admissions if a.request_id in moved}
    assert len(again) == len(moved) == 3
    assert all(admission.num_outputs >= before[name] > 0 for name, admission in again.items())


def test_what_was_in_flight_is_computed_again() -> None:
    w = world(groups=2, ahead=4)
    w.submit("a", prompt(20), max_tokens=30, ignore_eos=True)
    for _ in range(4):
        w.plan("g0")
    w.run("g0")
    w.leave("g0", died=True)
    w.drain(60)
    assert [a.num_outputs for plan in w.plans for a in plan.admissions] == [1]


def test_they_come_before_requests_that_are_new() -> None:
    w = world(groups=2, max_seqs=2)
    for number in range(6):
        w.submit(f"r{number}", prompt(10, number), max_tokens=20, ignore_eos=True)
    w.step()
    running = [name for name, home in homes(w).items() if home == ["g0"]]
    assert len(running) == 2
    w.leave("g0")
    w.drain(100)
    order = [a.request_id for plan in w.plans for a in plan.admissions]
    assert order[2:4] == running


def test_one_that_is_ending_ends_by_a_notice_with_what_it_has_brought() -> None:
    w = world(groups=2)
    w.submit("a", prompt(10), max_tokens=30, ignore_eos=True)
    for _ in range(4):
        w.step()
    w.cancel("a")
    w.leave("g0", died=True)
    w.drain(10)
    assert w.ended() == [Ended("a", Finish.CANCELLED)]
    assert w.notices[0].num_outputs == 4


def test_one_that_is_preempted_while_it_is_ending_ends_by_a_notice() -> None:
    """Its last step settles before a plan has said that it ends."""
    w = world(num_blocks=4, max_model_len=64, ahead=2, chunk=64, followed=True)
    w.submit("old", prompt(15), max_tokens=40, ignore_eos=True)
    w.submit("new", prompt(7, 1), max_tokens=40, ignore_eos=True)
    while not w.plans or not w.plans[-1].released:
        if w.plan() is None:
            w.run()
            w.settle()
    w.cancel("new")
    while w.published:
        w.run()
        w.settle()
    w.drain(100)
    assert [end.request_id for end in w.notices] == ["new"]
    assert w.notices[0].num_outputs == len(w.stories["new"].read)


def test_one_that_ends_in_flight_is_not_run_again() -> None:
    w = world(groups=2, ahead=2)
    w.submit("a", prompt(10), max_tokens=1)
    w.plan("g0")
    w.plan("g0")
    w.run("g0")
    w.leave("g0", died=True)
    w.drain(10)
    assert homes(w) == {}
    assert w.stories["a"].final is Finish.LENGTH


def test_held_branches_wait_for_a_prompt_that_is_computed_elsewhere() -> None:
    w = world(groups=2, chunk=16, followed=True)
    w.submit("r", prompt(80), max_tokens=5, ignore_eos=True, n=3)
    w.step()
    w.step()
    w.leave("g0", died=True)
    assert w.core.stats().waiting == 3
    w.drain(60)
    first, *others = [a for plan in w.plans for a in plan.admissions]
    assert (first.request_id, first.num_cached) == ("r#0", 0)
    assert [other.num_cached for other in others] == [64, 64]


def test_without_a_group_requests_wait_and_end_by_their_deadline() -> None:
    w = world(followed=True)
    w.submit("a", prompt(10), max_tokens=30, ignore_eos=True, timeout_s=5.0)
    w.submit("b", prompt(10, 1), max_tokens=10, ignore_eos=True)
    w.step()
    w.leave("g0", died=True)
    assert w.core.stats().waiting == 2
    w.advance(5.0)
    w.notice()
    assert w.stories["a"].final is Finish.DEADLINE
    w.join("g1", SHAPE)
    w.drain(40)
    assert w.stories["b"].final is Finish.LENGTH


def test_totals_outlive_groups() -> None:
    w = world(groups=2)
    for number in range(4):
        w.submit(f"r{number}", prompt(20, number), max_tokens=5, ignore_eos=True)
    w.drain(30)
    before = w.core.stats()
    assert before.output_tokens == 20
    w.leave("g0")
    after = w.core.stats()
    assert (after.groups, after.slots_total) == (1, 4)
    for name in ("step", "prompt_tokens", "output_tokens", "wasted_rows"):
        assert getattr(after, name) == getattr(before, name)


def die(w: World, name: str) -> None:
    """The group dies with its next step in flight."""
    w.plan(name)
    w.leave(name, died=True)


def home_names(w: World, group: str) -> list[str]:
    occupied = w.groups[group].core.ledger.occupied.values()
    return [occupancy.request.name for occupancy in occupied]


def test_after_two_deaths_a_request_runs_alone_and_the_third_ends_it() -> None:
    """The requests next to it finish, as they bring tokens where it is not."""
    w = world(max_seqs=8, followed=True)
    w.submit("poison", prompt(10), max_tokens=200, ignore_eos=True)
    for number in range(3):
        w.submit(f"r{number}", prompt(10, number + 1), max_tokens=60, ignore_eos=True)
    for death in range(2):
        w.step()
        die(w, f"g{death}")
        w.join(f"g{death + 1}", SHAPE)
    assert w.core.snapshot().deaths == {"poison": 2, "r0": 2, "r1": 2, "r2": 2}
    w.step()
    assert home_names(w, "g2") == ["poison"]
    die(w, "g2")
    w.join("g3", SHAPE)
    w.notice()
    assert w.stories["poison"].final is Finish.ERROR
    assert w.notices[0].num_outputs == len(w.stories["poison"].read)
    w.drain(400)
    assert {w.stories[f"r{number}"].final for number in range(3)} == {Finish.LENGTH}


def test_a_group_is_let_run_empty_for_one_that_runs_alone() -> None:
    w = world(groups=3)
    w.submit("a", prompt(10), max_tokens=40, ignore_eos=True)
    w.submit("b", prompt(10, 1), max_tokens=1)
    w.submit("old", prompt(10, 2), max_tokens=12, ignore_eos=True)
    w.step()
    for name in ("g0", "g1"):
        w.step()
        assert home_names(w, name) == ["a"]
        die(w, name)
    assert w.core.snapshot().deaths == {"a": 2}
    w.submit("new", prompt(10, 3), max_tokens=5, ignore_eos=True)
    while home_names(w, "g2") == ["old"]:
        w.step()
    while not home_names(w, "g2"):
        w.step()
    assert home_names(w, "g2") == ["a"]
    w.drain(300)
    assert [a.request_id for plan in w.plans for a in plan.admissions] == ["old", "a", "new"]


def test_one_that_comes_back_from_the_kept_group_does_not_keep_the_other_from_it() -> None:
    """It was there first, and waits until the one that runs alone has made progress."""
    shape = GroupShape(4, 4, 64)
    w = world(groups=1, num_blocks=4, max_model_len=64, chunk=64)
    w.submit("old", prompt(15), max_tokens=40, ignore_eos=True)
    w.submit("next", prompt(7, 1), max_tokens=40, ignore_eos=True)
    w.step()
    w.submit("alone", prompt(7, 2), max_tokens=20, ignore_eos=True)
    for name in ("g1", "g2"):
        w.join(name, shape)
        w.step()
        assert home_names(w, name) == ["alone"]
        die(w, name)
    w.drain(300)
    assert w.core.stats().preemptions > 0
    order = [a.request_id for plan in w.plans for a in plan.admissions]
    assert order == ["old", "next", "alone", "next"]


def test_progress_takes_the_suspicion_away() -> None:
    """With 16 outputs after an admission it runs among others again."""
    w = world(followed=True)
    w.submit("a", prompt(10), max_tokens=100, ignore_eos=True)
    for death in range(2):
        w.step()
        die(w, f"g{death}")
        w.join(f"g{death + 1}", SHAPE)
    w.submit("b", prompt(10, 1), max_tokens=10, ignore_eos=True)
    for _ in range(15):
        w.step()
    assert home_names(w, "g2") == ["a"]
    for _ in range(3):
        w.step()
    assert home_names(w, "g2") == ["a", "b"]
    assert w.core.snapshot().deaths == {}
    die(w, "g2")
    assert w.core.snapshot().deaths == {"b": 1}
    w.join("g3", SHAPE)
    w.drain(200)


def test_a_drain_is_no_death() -> None:
    w = world(groups=2)
    w.submit("a", prompt(10), max_tokens=30, ignore_eos=True)
    w.plan("g0")
    w.leave("g0")
    assert w.core.snapshot().deaths == {}
    w.drain(60)


@pytest.mark.parametrize("chunk", [16, 128])
def test_a_request_of_many_branches_ends_no_more_groups_than_one(chunk: int) -> None:
    """Its groups die in the prefill of its prompt, or later, in the steps of all branches."""
    w = world(max_seqs=8, chunk=chunk, tokens=128, followed=True)
    w.submit("poison", prompt(80), max_tokens=50, ignore_eos=True, n=4)
    deaths = 0
    while any(not story.final for story in w.stories.values()):
        if chunk == 128:
            w.step()
        die(w, f"g{deaths}")
        deaths += 1
        w.join(f"g{deaths}", SHAPE)
        w.notice()
    assert deaths == 3
    assert {story.final for story in w.stories.values()} == {Finish.ERROR}
    w.drain(10)


def test_a_group_that_breaks_the_protocol_can_leave_and_its_request_ends() -> None:
    """It has all its tokens, and the group denies that it has finished."""
    w = world(ahead=2)
    w.submit("a", prompt(10), max_tokens=1)
    w.submit("b", prompt(10, 1), max_tokens=30, ignore_eos=True)
    group = w.groups["g0"].core
    w.plan("g0")
    w.plan("g0")
    result = w.groups["g0"].worker.run(w.groups["g0"].published.popleft())
    with pytest.raises(ProtocolError, match="length"):
        group.settle(replace(result, finishes=(0, 0)))
    w.core.leave(group, died=True)
    assert w.core.take_ended() == (WaitingEnd("a", Finish.ERROR, 1),)
    assert w.core.check_integrity() == []
    assert (w.core.stats().groups, w.core.stats().waiting) == (0, 1)
