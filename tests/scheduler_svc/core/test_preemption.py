"""Too few blocks: which requests wait, which are preempted, and when blocks come back."""

from __future__ import annotations

import pytest

from .samples import prompt
from .world import World, world


def crowded(ahead: int) -> World:
    """Two requests that both fit at first, and then need more than there is."""
    w = world(num_blocks=4, max_model_len=64, ahead=ahead, chunk=64)
    w.submit("old", prompt(15), max_tokens=40, ignore_eos=True)
    w.submit("new", prompt(7, 1), max_tokens=40, ignore_eos=True)
    return w


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_last_come_first_preempted(ahead: int) -> None:
    w = crowded(ahead)
    w.drain(300)
    names = [admission.request_id for plan in w.plans for admission in plan.admissions]
    assert names[:2] == ["old", "new"]
    assert set(names[2:]) == {"new"}
    assert w.core.stats().preemptions == len(names) - 2 > 0


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_a_preempted_request_is_recomputed_with_its_outputs(ahead: int) -> None:
    w = crowded(ahead)
    w.drain(300)  # the auditor compares the admission's tokens with what the reader has seen
    again = [admission for plan in w.plans for admission in plan.admissions][2]
    assert again.num_outputs > 0
    assert len(again.tokens) == 7 + again.num_outputs


def test_a_request_of_another_tenant_that_waited_for_longer_takes_no_blocks_of_one_that_runs() -> None:
    """The queue of a tenant that floods is old, and so are its requests that come in from there."""
    w = world(num_blocks=6, max_seqs=2, max_model_len=64, chunk=64)
    for number, tokens in enumerate((6, 3, 50)):
        w.submit(f"f{number}", prompt(7, number), max_tokens=tokens, ignore_eos=True, tenant="flood")
    w.step()
    w.advance(1.0)
    w.submit("light", prompt(7, 3), max_tokens=50, ignore_eos=True, tenant="light")
    w.drain(300)
    admitted = [admission.request_id for plan in w.plans for admission in plan.admissions]
    assert admitted[:4] == ["f0", "f1", "light", "f2"]
    assert set(admitted[4:]) == {"f2"}


@pytest.mark.parametrize("priority", [-100, 0])
def test_a_priority_of_one_tenant_takes_no_blocks_of_another(priority: int) -> None:
    w = world(num_blocks=4, max_model_len=64, chunk=64)
    w.submit("running", prompt(15), max_tokens=40, ignore_eos=True, tenant="a")
    w.step()
    w.submit("later", prompt(7, 1), max_tokens=40, ignore_eos=True, tenant="b", priority=priority)
    w.drain(300)
    admitted = [admission.request_id for plan in w.plans for admission in plan.admissions]
    assert admitted.count("running") == 1
    assert admitted.count("later") > 1


def test_with_nothing_in_flight_the_blocks_change_hands_at_once() -> None:
    w = crowded(1)
    w.drain(300)
    preempting = next(plan for plan in w.plans if plan.released)
    assert preempting.grants
    assert not preempting.paused


def test_with_a_step_in_flight_the_needy_row_waits_until_it_settles() -> None:
    w = crowded(2)
    w.drain(300)
    index = next(i for i, plan in enumerate(w.plans) if plan.released)
    preempting, after = w.plans[index], w.plans[index + 1]
    assert preempting.paused == after.resumed == (0,)
    assert preempting.released == (1,)
    assert (preempting.num_decodes, after.num_decodes) == (0, 1)
    assert [grant.slot for grant in after.grants] == [0]


def test_the_last_to_come_waits_in_place() -> None:
    w = world(num_blocks=4, max_model_len=64, chunk=64)
    w.submit("old", prompt(14), max_tokens=14, ignore_eos=True)
    w.submit("new", prompt(30, 1), max_tokens=20, ignore_eos=True)
    w.drain(100)
    assert w.core.stats().preemptions == 0
    waits = [plan.step for plan in w.plans if 1 in plan.paused]
    comes_back = [plan.step for plan in w.plans if 1 in plan.resumed]
    assert len(waits) == len(comes_back) == 1
    assert waits[0] < comes_back[0]


def test_a_prompt_comes_in_only_if_it_fits_next_to_the_others() -> None:
    w = world(num_blocks=8, max_model_len=128, chunk=16)
    w.submit("a", prompt(50), max_tokens=20, ignore_eos=True)
    w.submit("b", prompt(70, 1), max_tokens=2)
    w.step()
    assert [admission.request_id for admission in w.plans[0].admissions] == ["a"]
    w.drain(100)
    assert w.core.stats().preemptions == 0


def test_alone_a_request_may_take_everything() -> None:
    w = world(num_blocks=4, max_model_len=64, chunk=64)
    w.submit("a", prompt(63), max_tokens=9, ignore_eos=True)
    w.drain(5)
    assert len(w.stories["a"].read) == 1


@pytest.mark.parametrize("ahead", [2, 3])
def test_slots_and_blocks_are_not_used_again_until_the_last_step_has_settled(ahead: int) -> None:
    w = world(num_blocks=2, max_seqs=1, max_model_len=32, ahead=ahead, chunk=32)
    w.submit("a", prompt(20), max_tokens=9, ignore_eos=True)
    w.plan()
    w.plan()
    w.submit("b", prompt(20, 1), max_tokens=1)
    w.cancel("a")
    w.run()
    w.settle()
    plan = w.plan()
    assert plan is not None
    assert plan.released == (0,)
    assert not plan.admissions  # step 2 has not settled
    assert (w.core.stats().slots_free, w.core.stats().blocks_free) == (0, 0)
    w.run()
    w.settle()
    assert (w.core.stats().slots_free, w.core.stats().blocks_free) == (1, 2)
    plan = w.plan()
    assert plan is not None
    assert [admission.slot for admission in plan.admissions] == [0]
    w.drain(10)
