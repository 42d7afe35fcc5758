"""Groups that join, leave and die while the real scheduler leads them; each moves by hand.

All run in virtual time; those that depend most on what the store does also run on a real Redis.
"""

from __future__ import annotations

import pytest

from albireo.contract.plan import Ended, Finish, GroupShape, StepResult
from albireo.store.interface import EntryId
from albireo.v1 import log_pb2 as log
from tests.races.conftest import MakeScene, on_both
from tests.races.fake_worker import Closed, FakeGroup
from tests.races.reader import Story
from tests.races.scene import Scene
from tests.scheduler_svc.core.samples import prompt

look_aheads = pytest.mark.parametrize("look_ahead", [1, 2, 4])


def reasons(scene: Scene) -> list[str]:
    scene.reader.read()
    return [closed.reason for closed in scene.reader.closed]


def close(scene: Scene, group: FakeGroup) -> None:
    """Waits until the scheduler has closed a group, which then moves no more."""
    group.wait_closed()
    scene.groups.remove(group)


@on_both
@look_aheads
def test_requests_of_a_dead_group_go_on_at_the_next_token_in_another(
    make_scene: MakeScene, look_ahead: int
) -> None:
    """The other group brings each token once, whatever was in flight; the reader checks the positions."""
    scene = make_scene(look_ahead=look_ahead)
    scene.submit("a", prompt(20), max_tokens=12)
    scene.submit("b", prompt(10, 1), max_tokens=12)
    flight = scene.fill()
    for _ in range(4):
        scene.group.answer(flight.pop(0))
        flight.append(scene.group.next_plan())
    late = [(plan, scene.group.run(plan)) for plan in flight]
    scene.group.lease.release()
    close(scene, scene.group)
    assert all(scene.group.refused(plan, result) for plan, result in late)
    scene.add_group()
    plans = scene.finish(hold=look_ahead)
    admitted = {a.request_id: a.num_outputs for plan in plans for a in plan.admissions}
    assert admitted["a"] == 4
    for name in "ab":
        assert scene.story(name) == scene.alone(name)
    assert reasons(scene) == ["its announcement has expired"]


@on_both
def test_what_a_group_reported_before_it_was_closed_counts(make_scene: MakeScene) -> None:
    scene = make_scene(look_ahead=4)
    scene.submit("a", prompt(20), max_tokens=5)
    scene.submit("b", prompt(10, 1), max_tokens=9)
    for _ in range(5):
        plan = scene.group.next_plan()
        scene.group.answer(plan)
    scene.group.lease.release()
    close(scene, scene.group)
    other = scene.add_group()
    plans = scene.finish()
    assert "a" not in {a.request_id for plan in plans for a in plan.admissions}
    assert other.epoch == 1
    for name in "ab":
        assert scene.story(name) == scene.alone(name)


@on_both
def test_a_group_that_leaves_gives_its_requests_to_the_others(make_scene: MakeScene) -> None:
    scene = make_scene()
    other = scene.add_group()
    for number in range(4):
        scene.submit(f"r{number}", prompt(10, number), max_tokens=6)
    plan = scene.group.next_plan()
    scene.group.answer(plan)
    scene.group.leave()
    close(scene, scene.group)
    scene.finish()
    for number in range(4):
        assert scene.story(f"r{number}") == scene.alone(f"r{number}")
    assert reasons(scene) == ["it left"]
    assert [group.incarnation for group in scene.load().groups] == [other.incarnation]


@on_both
def test_a_request_waits_for_a_group_where_there_is_none(make_scene: MakeScene) -> None:
    scene = make_scene()
    scene.group.leave()
    close(scene, scene.group)
    scene.submit("a", prompt(10))
    scene.submit("late", prompt(10, 1), timeout_s=0.5)
    scene.wait_for(lambda: scene.load().waiting == 2, "it does not wait")
    assert not scene.load().group_alive
    scene.wait_for(lambda: scene.story("late").final is Finish.DEADLINE, "it has no deadline")
    assert scene.story("late") == Story([], Finish.DEADLINE)
    scene.group = scene.add_group()
    scene.finish()
    assert scene.story("a") == scene.alone("a")


def test_branches_move_with_what_each_has(make_scene: MakeScene) -> None:
    scene = make_scene()
    scene.submit("a", prompt(40), max_tokens=9, n=3)
    for _ in range(4):
        scene.group.answer(scene.group.next_plan())
    scene.group.lease.release()
    close(scene, scene.group)
    scene.add_group()
    scene.finish()
    for branch in range(3):
        assert scene.story(f"a#{branch}") == scene.alone(f"a#{branch}")


def test_a_cancellation_reaches_a_request_between_two_groups(make_scene: MakeScene) -> None:
    scene = make_scene()
    scene.submit("a", prompt(10), max_tokens=20)
    for _ in range(3):
        scene.group.answer(scene.group.next_plan())
    scene.group.lease.release()
    close(scene, scene.group)
    scene.cancel("a")
    scene.wait_for(lambda: scene.story("a").final is Finish.CANCELLED, "it is not cancelled")
    assert scene.story("a").ids == scene.alone("a").ids[:3]
    scene.add_group()
    scene.finish()


def test_an_end_that_a_dead_group_did_not_repeat_is_announced_again(make_scene: MakeScene) -> None:
    scene = make_scene()
    scene.submit("a", prompt(10), max_tokens=20)
    scene.submit("b", prompt(10, 1), max_tokens=20)
    flight = scene.fill()
    for _ in range(3):
        scene.group.answer(flight.pop(0))
        flight.append(scene.group.next_plan())
    scene.cancel("a")
    scene.cluster.wait_read()
    scene.group.answer(flight.pop(0))
    plan = scene.group.next_plan()
    assert plan.ended == (Ended("a", Finish.CANCELLED),)
    scene.group.lease.release()
    close(scene, scene.group)
    scene.add_group()
    scene.finish()
    assert scene.story("a") == Story(scene.alone("a").ids[:4], Finish.CANCELLED)
    assert scene.story("b") == scene.alone("b")


def test_requests_spread_over_groups(make_scene: MakeScene) -> None:
    scene = make_scene(max_seqs=4)
    scene.add_group()
    for number in range(8):
        scene.submit(f"r{number}", prompt(10, number), max_tokens=5)

    def running() -> list[int]:
        return [group.running for group in scene.load().groups]

    scene.wait_for(lambda: running() == [4, 4], "a request waits while a slot is free")
    scene.finish()
    for number in range(8):
        assert scene.story(f"r{number}") == scene.alone(f"r{number}")


def test_a_result_out_of_turn_closes_its_group_and_harms_no_other(make_scene: MakeScene) -> None:
    scene = make_scene()
    scene.submit("a", prompt(10), max_tokens=10)
    scene.group.answer(scene.group.next_plan())
    scene.group.run(scene.group.next_plan())
    third = scene.group.next_plan()
    scene.group.append(third, StepResult(third.epoch, third.step))
    close(scene, scene.group)
    assert "it broke the protocol" in reasons(scene)[0]
    scene.add_group()
    scene.finish()
    assert scene.story("a") == scene.alone("a")


def test_groups_are_called_as_their_operators_want_if_they_can(make_scene: MakeScene) -> None:
    scene = make_scene()
    groups = [scene.add_group(name=name) for name in ("fast", "fast", "")]
    assert [group.name for group in (scene.group, *groups)] == ["g0", "fast", "g1", "g2"]
    scene.finish()
    assert [group.name for group in scene.load().groups] == ["g0", "fast", "g1", "g2"]


def test_gateways_find_what_the_groups_have_in_common(make_scene: MakeScene) -> None:
    scene = make_scene(max_model_len=64)

    def model() -> log.ServedModel:
        return log.ServedModel.FromString(scene.cluster.get(scene.keys.served_model) or b"")

    assert (model().max_model_len, model().simulated) == (64, False)
    large = scene.add_group(GroupShape(64, 4, 512), device="sim")
    assert (model().max_model_len, model().simulated) == (512, True)
    large.leave()
    close(scene, large)
    scene.wait_for(lambda: model().max_model_len == 64, "the model is that of a group that has left")
    scene.group.leave()
    close(scene, scene.group)
    assert model().max_model_len == 64


def test_a_request_goes_to_a_group_that_can_hold_it(make_scene: MakeScene) -> None:
    scene = make_scene(max_model_len=64)
    large = scene.add_group(GroupShape(64, 4, 256))
    scene.submit("long", prompt(100), max_tokens=100)
    scene.submit("short", prompt(10, 1), max_tokens=5)
    scene.finish()
    assert large.table.step >= 100
    assert len(scene.story("long").ids) in range(1, 101)
    assert scene.story("short").final


def test_a_new_scheduler_leads_all_registered_groups_again(make_scene: MakeScene) -> None:
    scene = make_scene()
    other = scene.add_group()
    scene.submit("a", prompt(10))
    scene.group.answer(scene.group.next_plan())
    scene.restart_scheduler()
    other.wait_epoch(after=1)
    assert (scene.group.epoch, other.epoch) == (2, 2)
    for number in range(6):
        scene.submit(f"r{number}", prompt(10, number))
    scene.finish()
    for number in range(6):
        assert scene.story(f"r{number}") == scene.alone(f"r{number}")


def test_a_group_that_died_before_it_was_led_is_cleared_away(make_scene: MakeScene) -> None:
    scene = make_scene()
    store = scene.cluster.open_store(scene.keys)
    store.register("gone")
    scene.wait_for(lambda: "gone" not in store.groups(), "it stays registered")
    scene.finish()


def test_a_silent_rank_ends_its_group_within_the_bound_and_a_second(make_scene: MakeScene) -> None:
    scene = make_scene(heartbeat_seconds=5)
    clock, began = scene.cluster.clock, scene.cluster.clock.now()
    for count in range(1, 40):
        clock.sleep(0.25)
        scene.group.beat(0, log.RankBeat(count=count))
    last = clock.now()
    assert not reasons(scene)
    scene.wait_for(lambda: bool(reasons(scene)), "it is not found")
    assert 5 <= clock.now() - last <= 6
    assert "rank 0 has shown no heartbeat" in reasons(scene)[0]
    assert clock.now() - began < 20


def test_a_closed_group_is_not_led_again(make_scene: MakeScene) -> None:
    scene = make_scene()
    scene.group.lease.release()
    with pytest.raises(Closed):
        scene.group.next_plan(seconds=10)
    assert scene.group.lease.acquire()
    scene.cluster.clock.sleep(3)
    assert scene.load().groups == []
    entry = EntryId(scene.group.epoch, 9)
    assert scene.cluster.refuses(scene.group.results_key, entry, b"x")
    scene.group.lease.release()
