"""Every way in which a request can end, and that it ends once."""

from __future__ import annotations

import pytest

from albireo.contract.plan import Ended, Finish, GroupShape, SamplingParams, Submission
from scheduler_svc.core import Limits, SchedulerCore, WaitingEnd

from .auditor import EPOCH
from .samples import prompt, seed_that_stops
from .world import world


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_a_stop_wastes_one_row_for_each_plan_ahead(ahead: int) -> None:
    w = world(ahead=ahead)
    w.submit("a", prompt(10), max_tokens=30, seed=seed_that_stops(prompt(10), 8))
    w.drain(40)
    assert len(w.stories["a"].read) == 8
    assert w.core.stats().wasted_rows == w.worker.wasted_rows == ahead - 1


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_a_length_end_wastes_nothing(ahead: int) -> None:
    w = world(ahead=ahead)
    w.submit("a", prompt(10), max_tokens=8, ignore_eos=True)
    w.drain(40)
    assert sum(plan.num_decodes for plan in w.plans) == 7
    assert w.worker.wasted_rows == 0


@pytest.mark.parametrize("ahead", [1, 2])
def test_the_context_ends_a_request(ahead: int) -> None:
    w = world(ahead=ahead, max_model_len=20)
    w.submit("a", prompt(10), max_tokens=200, ignore_eos=True)
    w.submit("b", prompt(19, 1), max_tokens=200, ignore_eos=True)
    w.drain(40)
    assert [len(w.stories[name].read) for name in "ab"] == [10, 1]
    assert w.stories["a"].final is Finish.LENGTH


def test_a_length_end_releases_its_slot_in_the_plan_after_its_last_row() -> None:
    w = world(ahead=2)
    w.submit("a", prompt(10), max_tokens=1)
    w.submit("b", prompt(10, 1), max_tokens=9, ignore_eos=True)
    w.plan()
    plan = w.plan()
    assert plan is not None
    assert plan.released == (0,)
    assert plan.num_decodes == 1
    w.drain(20)


def test_cancel_while_waiting() -> None:
    w = world(max_seqs=1)
    w.submit("a", prompt(10), max_tokens=5, ignore_eos=True)
    w.submit("b", prompt(10, 1))
    w.step()
    assert w.cancel("b")
    w.drain(20)
    assert w.ended() == [Ended("b", Finish.CANCELLED)]
    assert not w.stories["b"].admitted


@pytest.mark.parametrize("ahead", [1, 2, 4])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_cancel_while_prefilling_or_decoding(ahead: int, steps: int) -> None:
    w = world(ahead=ahead, chunk=16)
    w.submit("a", prompt(40), max_tokens=30, ignore_eos=True)
    for _ in range(steps):
        w.step()
    assert w.cancel("a")
    assert w.cancel("a")  # it goes on living until a plan says that it ended
    w.drain(10)
    assert w.ended() == [Ended("a", Finish.CANCELLED)]
    assert not w.cancel("a")


def test_cancel_while_paused() -> None:
    w = world(num_blocks=4, max_model_len=64, chunk=64)
    w.submit("old", prompt(14), max_tokens=14, ignore_eos=True)
    w.submit("new", prompt(30, 1), max_tokens=20, ignore_eos=True)
    while not w.plans or not w.plans[-1].paused:
        w.step()
    w.cancel("new")
    w.step()
    assert w.plans[-1].released == (1,)
    w.drain(30)


def test_cancel_while_preempted_with_rows_in_flight() -> None:
    w = world(num_blocks=4, max_model_len=64, ahead=2, chunk=64)
    w.submit("old", prompt(15), max_tokens=40, ignore_eos=True)
    w.submit("new", prompt(7, 1), max_tokens=40, ignore_eos=True)
    while not w.plans or not w.plans[-1].released:
        if w.plan() is None:
            w.run()
            w.settle()
    assert w.core.stats().preemptions == 1
    w.cancel("new")
    w.drain(100)
    assert w.ended() == [Ended("new", Finish.CANCELLED)]


def test_a_finish_that_settles_first_drops_the_cancellation() -> None:
    w = world()
    w.submit("a", prompt(10), max_tokens=1)
    w.plan()
    w.run()
    assert w.cancel("a")
    w.settle()
    assert not w.cancel("a")
    w.drain(5)
    assert w.ended() == []
    assert w.stories["a"].final is Finish.LENGTH


def test_a_finish_in_flight_stands_before_the_ended() -> None:
    w = world(ahead=2)
    w.submit("a", prompt(10), max_tokens=1)
    w.plan()
    w.cancel("a")
    w.plan()
    assert w.ended() == [Ended("a", Finish.CANCELLED)]
    w.drain(5)
    assert w.stories["a"].final is Finish.LENGTH
    assert w.core.stats().late_rows == 1


def test_an_id_may_come_again_once_it_is_over() -> None:
    w = world(ahead=2)
    w.submit("a", prompt(10), max_tokens=20, ignore_eos=True)
    w.plan()
    w.cancel("a")
    w.plan()
    before = w.core.stats().waiting
    w.core.submit(w.stories["a"].submission, w.now)
    assert w.core.stats().waiting == before + 1
    w.check()


def test_a_live_id_is_left_as_it_is() -> None:
    w = world()
    w.submit("a", prompt(10), max_tokens=3)
    w.core.submit(w.stories["a"].submission, w.now)
    assert w.core.stats().waiting == 1
    w.drain(10)


def test_a_deadline_while_waiting() -> None:
    w = world(max_seqs=1)
    w.submit("a", prompt(10), max_tokens=9, ignore_eos=True)
    w.submit("b", prompt(10, 1), timeout_s=2.0)
    w.step()
    assert w.core.next_deadline() == w.now + 2.0
    w.advance(1.9)
    assert w.core.stats().waiting == 1
    w.advance(0.2)
    assert w.core.next_deadline() is None
    w.drain(20)
    assert w.ended() == [Ended("b", Finish.DEADLINE)]


def test_a_deadline_while_running() -> None:
    w = world(ahead=2)
    w.submit("a", prompt(10), max_tokens=99, ignore_eos=True, timeout_s=2.0)
    w.step()
    w.now += 3.0  # plan sees to it by itself
    w.drain(10)
    assert w.ended() == [Ended("a", Finish.DEADLINE)]


def test_the_first_reason_stands() -> None:
    w = world()
    w.submit("a", prompt(10), timeout_s=2.0)
    w.cancel("a")
    w.advance(3.0)
    w.drain(5)
    assert w.ended() == [Ended("a", Finish.CANCELLED)]


def test_an_unknown_id_cannot_be_cancelled() -> None:
    assert not world().cancel("unknown")


def core_with_one_slot() -> SchedulerCore:
    core = SchedulerCore(Limits(max_num_seqs=1), epoch=EPOCH, salt=b"")
    core.join("g", GroupShape(64, 1, 256))
    return core


def refused_and_then_submitted(core: SchedulerCore, *, timeout_s: float | None = None) -> Submission:
    """A submission that cannot run, and then one of the same id that can."""
    sampling = SamplingParams(max_tokens=8, seed=0, ignore_eos=True)
    core.refuse(Submission("a", (), sampling))
    submission = Submission("a", prompt(10), sampling, timeout_s=timeout_s)
    core.submit(submission, 0.0)
    return submission


def test_a_request_goes_on_whose_id_was_refused_before() -> None:
    core = core_with_one_slot()
    refused_and_then_submitted(core)
    assert core.stats().waiting == 1
    assert core.take_ended() == (WaitingEnd("a", Finish.ERROR, 0),)
    core.place()
    plan = core.groups["g"].plan(0.0)
    assert plan is not None
    assert [admission.request_id for admission in plan.admissions] == ["a"]
    assert core.stats().running == 1
    assert core.check_integrity() == []


def test_a_follower_keeps_the_request_whose_id_was_refused_before() -> None:
    leader, follower = core_with_one_slot(), core_with_one_slot()
    submission = refused_and_then_submitted(leader)
    follower.submit(submission, 0.0)  # it has never seen the other one
    follower.apply_ended(leader.take_ended())
    leader.place()
    plan = leader.groups["g"].plan(0.0)
    assert plan is not None
    follower.groups["g"].apply(plan)
    assert follower.snapshot() == leader.snapshot()
    assert follower.stats().running == 1


def test_a_refusal_and_a_submission_of_the_same_id_are_two_departures() -> None:
    core = core_with_one_slot()
    refused_and_then_submitted(core)
    assert core.take_departures() == 1
    core.place()
    assert core.groups["g"].plan(0.0) is not None
    assert core.take_departures() == 1


def test_a_deadline_ends_the_request_whose_id_was_refused_before() -> None:
    core = core_with_one_slot()
    refused_and_then_submitted(core, timeout_s=2.0)
    assert core.next_deadline() == 2.0
    # Without a plan in between, and once more after it.
    core.expire(3.0)
    core.expire(3.0)
    assert core.next_deadline() is None
    assert core.take_ended() == (WaitingEnd("a", Finish.DEADLINE, 0), WaitingEnd("a", Finish.ERROR, 0))
    assert core.take_departures() == 2
    assert core.check_integrity() == []


def test_a_cancellation_ends_the_request_whose_id_was_refused_before() -> None:
    core = core_with_one_slot()
    refused_and_then_submitted(core)
    assert core.cancel("a")
    assert core.take_ended() == (WaitingEnd("a", Finish.CANCELLED, 0), WaitingEnd("a", Finish.ERROR, 0))
    assert core.take_departures() == 2
