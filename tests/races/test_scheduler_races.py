"""The real scheduler against a group that answers when, and what, the test says.

All run in virtual time; those that depend most on what the store does also run on a real Redis.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.contract.plan import Chunk, Ended, Finish
from albireo.store.interface import EntryId, Fenced
from tests.races.conftest import MakeScene, on_both
from tests.races.fake_worker import result_bytes
from tests.races.reader import Story
from tests.scheduler_svc.core.samples import prompt

look_aheads = pytest.mark.parametrize("look_ahead", [1, 2, 4])


@on_both
@look_aheads
def test_an_abort_with_steps_in_flight_ends_the_request_in_the_next_plan(
    make_scene: MakeScene, look_ahead: int
) -> None:
    scene = make_scene(look_ahead=look_ahead)
    scene.submit("a", prompt(10), max_tokens=50)
    oldest, *flight = scene.fill()
    scene.cancel("a")
    assert scene.group.plan_within(0.2) is None  # the window is full
    scene.group.answer(oldest)
    plan = scene.group.next_plan()
    assert plan.ended == (Ended("a", Finish.CANCELLED),)
    assert (plan.released, plan.num_decodes) == ((0,), 0)
    for in_flight in (*flight, plan):
        scene.group.answer(in_flight)
    scene.finish()
    # What the steps in flight brought stands in the log before the end, so it was delivered.
    assert scene.story("a") == Story(scene.alone("a").ids[: look_ahead + 1], Finish.CANCELLED)


@on_both
def test_a_finish_in_flight_beats_an_abort(make_scene: MakeScene) -> None:
    scene = make_scene(script={"a": [5, 0]})
    scene.submit("a", prompt(10), ignore_eos=False)
    first, second = scene.fill()
    scene.group.answer(first)
    third = scene.group.next_plan()
    scene.cancel("a")
    scene.cluster.wait_read()
    scene.group.answer(second)  # its row is the end; the cancellation has nothing left to end
    scene.group.answer(third)
    plans = scene.finish()
    assert scene.story("a") == Story([5, 0], Finish.STOP)
    assert [plan.ended for plan in plans] == [()] * len(plans)


@look_aheads
def test_eos_overshoot_costs_one_row_for_each_plan_ahead_and_none_is_delivered(
    make_scene: MakeScene, look_ahead: int
) -> None:
    scene = make_scene(look_ahead=look_ahead, script={"a": [5, 6, 0, 9, 9, 9, 9]})
    scene.submit("a", prompt(10), max_tokens=30, ignore_eos=False)
    flight = scene.fill()
    for _ in range(2):
        scene.group.answer(flight.pop(0))
        flight.append(scene.group.next_plan())
    for plan in flight:
        scene.group.answer(plan)
    scene.finish()
    assert scene.story("a") == Story([5, 6, 0], Finish.STOP)
    assert scene.load().wasted_rows == scene.group.table.wasted_rows == look_ahead


@look_aheads
def test_preemption_with_steps_in_flight_loses_and_repeats_nothing(
    make_scene: MakeScene, look_ahead: int
) -> None:
    """Both fit at first, and then need more than there is; the table checks every block that is read."""
    scene = make_scene(look_ahead=look_ahead, num_blocks=4, max_model_len=64)
    scene.submit("old", prompt(15), max_tokens=40)
    scene.submit("new", prompt(7, 1), max_tokens=40)
    plans = scene.finish(hold=look_ahead)
    for name in ("old", "new"):
        assert scene.story(name) == scene.alone(name)
    admitted = [admission for plan in plans for admission in plan.admissions]
    assert len(admitted) == 2 + scene.load().preemptions > 2
    assert {admission.request_id for admission in admitted[2:]} == {"new"}


@look_aheads
def test_a_prompt_in_chunks_does_not_hold_up_rows_that_decode(make_scene: MakeScene, look_ahead: int) -> None:
    scene = make_scene(look_ahead=look_ahead, prefill_chunk=16)
    scene.submit("a", prompt(10), max_tokens=30)
    flight = scene.fill()
    scene.submit("b", prompt(70, 1), max_tokens=4)
    for plan in flight:
        scene.group.answer(plan)
    plans = scene.finish(hold=look_ahead)
    chunked = [plan for plan in plans if plan.chunks]
    assert [plan.chunks for plan in chunked] == [
        (Chunk(1, start, min(16, 70 - start)),) for start in range(0, 70, 16)
    ]
    assert [plan.num_decodes for plan in chunked] == [1] * 5
    assert [chunked[-1].step - chunked[0].step, len(chunked)] == [4, 5]
    for name in "ab":
        assert scene.story(name) == scene.alone(name)


@look_aheads
def test_a_deadline_during_prefill_frees_the_slot_after_the_last_chunk_in_flight(
    make_scene: MakeScene, look_ahead: int
) -> None:
    scene = make_scene(look_ahead=look_ahead, max_seqs=1, max_num_seqs=1, prefill_chunk=16)
    scene.submit("a", prompt(200), timeout_s=0.8)
    oldest, *flight = scene.fill()
    scene.submit("b", prompt(20, 1))
    scene.cluster.clock.sleep(0.8)  # until the deadline
    scene.group.answer(oldest)
    plan = scene.group.next_plan()
    assert plan.ended == (Ended("a", Finish.DEADLINE),)
    assert (plan.released, plan.chunks, plan.admissions) == ((0,), (), ())
    for chunk in flight:
        assert scene.group.plan_within(0.1) is None  # its blocks are still being written
        scene.group.answer(chunk)
    admitting = scene.group.next_plan()
    assert [admission.request_id for admission in admitting.admissions] == ["b"]
    scene.group.answer(plan)
    scene.group.answer(admitting)
    scene.finish()
    assert scene.story("a") == Story([], Finish.DEADLINE)
    assert scene.story("b") == scene.alone("b")


@look_aheads
def test_a_slot_is_used_again_in_the_plan_that_releases_it_once_its_last_step_settled(
    make_scene: MakeScene, look_ahead: int
) -> None:
    scene = make_scene(
        look_ahead=look_ahead,
        num_blocks=2,
        max_seqs=1,
        max_num_seqs=1,
        max_model_len=32,
        script={"a": [5, 0]},
    )
    scene.submit("a", prompt(20), ignore_eos=False)
    first, *flight = scene.fill()
    scene.submit("b", prompt(20, 1), max_tokens=2)
    scene.group.answer(first)
    flight.append(scene.group.next_plan())
    for plan in flight:  # the first of them brings the end; the others still write into its blocks
        assert scene.group.plan_within(0.1) is None
        scene.group.answer(plan)
    reusing = scene.group.next_plan()
    assert reusing.released == (0,)
    assert [admission.slot for admission in reusing.admissions] == [0]
    scene.group.answer(reusing)
    scene.finish()
    assert scene.story("a") == Story([5, 0], Finish.STOP)
    assert scene.story("b") == scene.alone("b")


def test_a_result_is_taken_once(make_scene: MakeScene) -> None:
    scene = make_scene()
    scene.submit("a", prompt(10))
    first, second = scene.fill()
    result = scene.group.answer(first)
    other = replace(result, ids=(9,))
    assert scene.group.refused(first, result)
    assert scene.group.refused(first, other)
    # The writer of rank 0 takes a repetition of its own for done, and anything else for another's.
    writer = scene.cluster.open_store(scene.keys).log(scene.group.results_key, keep=100)
    writer.append(EntryId(first.epoch, first.step), result_bytes(first, result))
    with pytest.raises(Fenced):
        writer.append(EntryId(first.epoch, first.step), result_bytes(first, other))
    scene.group.answer(second)
    scene.finish()
    assert scene.story("a") == scene.alone("a")


def test_rows_of_an_occupancy_that_is_over_are_dropped(make_scene: MakeScene) -> None:
    scene = make_scene(max_seqs=1, max_num_seqs=1)
    scene.submit("a", prompt(10), max_tokens=1)
    scene.submit("b", prompt(10, 1), max_tokens=6)
    plan = scene.group.next_plan()
    ended = scene.group.answer(plan)
    plan = scene.group.next_plan()
    result = scene.group.run(plan)
    assert (ended.slots, result.slots) == ((0,), (0,))
    late = replace(
        result,
        slots=(*ended.slots, *result.slots, 0),
        incarnations=(*ended.incarnations, *result.incarnations, 77),
        ids=(9, *result.ids, 9),
        finishes=(0, *result.finishes, int(Finish.STOP)),
    )
    # A reader refuses a row after an end, so this one must not be taken for one of the log.
    scene.reader.read()
    scene.reader.forget(scene.group.incarnation, ended.incarnations[0])
    scene.group.append(plan, late)
    scene.finish()
    assert scene.story("a") == scene.alone("a")
    assert scene.story("b") == scene.alone("b")


@on_both
def test_a_result_that_comes_after_its_epoch_is_refused(make_scene: MakeScene) -> None:
    scene = make_scene()
    scene.submit("a", prompt(10))
    first, second = scene.fill()
    late = [(plan, scene.group.run(plan)) for plan in (first, second)]
    scene.restart_scheduler()
    assert all(scene.group.refused(plan, result) for plan, result in late)
    scene.submit("b", prompt(10, 1))
    plan = scene.group.next_plan()
    assert (plan.epoch, plan.step) == (2, 1)
    assert [admission.slot for admission in plan.admissions] == [0]
    scene.group.answer(plan)
    scene.finish()
    assert scene.story("b") == scene.alone("b")


def test_a_result_that_skips_a_step_ends_the_group_and_nothing_else(make_scene: MakeScene) -> None:
    scene = make_scene()
    scene.submit("a", prompt(10))
    first, second = scene.fill()
    scene.group.answer(first)
    third = scene.group.next_plan()
    scene.group.run(second)
    scene.group.answer(third)
    scene.group.wait_closed()
    scene.reader.read()
    [closed] = scene.reader.closed
    assert "step 3" in closed.reason


@on_both
def test_a_group_whose_lease_expires_is_closed(make_scene: MakeScene) -> None:
    scene = make_scene()
    scene.submit("a", prompt(10))
    plan, _ = scene.fill()
    late = scene.group.run(plan)
    scene.group.lease.release()
    scene.group.wait_closed()
    scene.reader.read()
    assert [opening.group for opening in scene.reader.opened] == [scene.group.incarnation]
    assert [closed.group for closed in scene.reader.closed] == [scene.group.incarnation]
    assert scene.group.refused(plan, late)


def test_a_request_that_the_group_cannot_hold_ends_with_an_error(make_scene: MakeScene) -> None:
    """A gateway that knows only the last group lets one through that is too long for this one."""
    scene = make_scene(max_model_len=64)
    scene.submit("long", prompt(64))
    scene.submit("b", prompt(10, 1))
    scene.finish()
    assert scene.story("long") == Story([], Finish.ERROR)
    assert scene.story("b") == scene.alone("b")
