"""Several branches of one request, before the real scheduler and a group that answers when the test says."""

from __future__ import annotations

import pytest

from albireo.contract.plan import Ended, Finish, branch_names
from tests.races.conftest import MakeScene
from tests.races.reader import Story
from tests.scheduler_svc.core.samples import prompt

look_aheads = pytest.mark.parametrize("look_ahead", [1, 2, 4])


@look_aheads
def test_branches_share_a_prompt_that_has_not_settled(make_scene: MakeScene, look_ahead: int) -> None:
    """The scripted group checks the KV of every block that a branch reads."""
    scene = make_scene(look_ahead=look_ahead)
    scene.submit("a", prompt(40), max_tokens=9, n=4)
    plans = scene.finish(hold=look_ahead)
    admitted = [admission for plan in plans for admission in plan.admissions]
    assert [admission.num_cached for admission in admitted] == [0, 32, 32, 32]
    for name in branch_names("a", 4):
        assert scene.story(name) == scene.alone(name)


@look_aheads
def test_a_cancellation_ends_all_branches_wherever_they_stand(make_scene: MakeScene, look_ahead: int) -> None:
    scene = make_scene(look_ahead=look_ahead, max_num_seqs=2, prefill_chunk=16)
    scene.submit("a", prompt(100), max_tokens=90, n=3)
    flight = scene.fill()
    scene.cancel("a")
    scene.group.answer(flight.pop(0))
    plan = scene.group.next_plan()
    assert plan.ended == (Ended("a#0", Finish.CANCELLED),)  # the others wait: a notice ends them
    assert {scene.story(name).final for name in ("a#1", "a#2")} == {Finish.CANCELLED}
    for held in (*flight, plan):
        scene.group.answer(held)
    scene.finish()
    assert {scene.story(name).final for name in branch_names("a", 3)} == {Finish.CANCELLED}


@look_aheads
def test_branches_that_are_preempted_lose_nothing(make_scene: MakeScene, look_ahead: int) -> None:
    scene = make_scene(look_ahead=look_ahead, num_blocks=8, max_model_len=96, prefix_cache=False)
    scene.submit("a", prompt(33), max_tokens=50, n=4)
    scene.finish(hold=look_ahead)
    assert scene.load().preemptions > 0
    for name in branch_names("a", 4):
        assert scene.story(name) == scene.alone(name)


def test_branches_that_the_group_cannot_hold_all_end_with_an_error(make_scene: MakeScene) -> None:
    scene = make_scene(max_model_len=64)
    scene.submit("long", prompt(64), n=2)
    scene.finish()
    assert [scene.story(name) for name in branch_names("long", 2)] == [Story([], Finish.ERROR)] * 2
