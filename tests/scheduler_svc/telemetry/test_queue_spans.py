"""Spans of waiting: one for each time that a traced request waits, and nothing is kept of what is over."""

from __future__ import annotations

import pytest

from albireo.contract.plan import Admission, Ended, Finish, Plan, SamplingParams, StepResult, Submission
from scheduler_svc.core import WaitingEnd
from scheduler_svc.telemetry.queue_spans import QueueSpans
from tests.albireo.telemetry.kept import PARENT_ID, TRACE_ID, TRACEPARENT, KeptTelemetry

SAMPLING = SamplingParams(max_tokens=8, seed=0)
GROUP = "g0"


class Scene:
    """A span a wait, as ``(name of the branch or None, from, to, why it ended)``."""

    def __init__(self) -> None:
        self._telemetry = KeptTelemetry()
        self.spans = QueueSpans(self._telemetry.tracer)

    def submit(self, name: str, at: int, *, n: int = 1, traceparent: str = TRACEPARENT) -> None:
        self.spans.submitted(Submission(name, (1, 2), SAMPLING, n=n, traceparent=traceparent), at)

    def admit(self, name: str, at: int, *, slot: int = 0, incarnation: int = 1, group: str = GROUP) -> None:
        admission = Admission(slot, incarnation, name, (1, 2), 0, 0, SAMPLING)
        self.spans.published(group, Plan(1, 1, admissions=(admission,)), at)

    @property
    def recorded(self) -> list[tuple[int | None, int | None, object, object]]:
        for span in self._telemetry.spans:
            assert span.name == "queue"
            assert span.parent is not None
            assert f"{span.parent.trace_id:032x}" == TRACE_ID
            assert f"{span.parent.span_id:016x}" == PARENT_ID
        found = [(span, span.attributes or {}) for span in self._telemetry.spans]
        return [
            (
                span.start_time,
                span.end_time,
                given.get("albireo.branch"),
                given.get("albireo.ended"),
            )
            for span, given in found
        ]

    @property
    def preempted(self) -> list[object]:
        return [(span.attributes or {})["albireo.preempted"] for span in self._telemetry.spans]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_request_waits_from_the_inbox_to_the_plan_that_admits_it(scene: Scene) -> None:
    scene.submit("r", 100)
    scene.admit("r", 130)
    scene.spans.settled(
        GROUP, StepResult(1, 2, slots=(0,), incarnations=(1,), ids=(5,), finishes=(Finish.STOP,))
    )
    assert scene.recorded == [(100, 130, None, None)]
    assert len(scene.spans) == 0
    scene.spans.published(GROUP, Plan(1, 3, released=(0,)), 150)
    assert len(scene.recorded) == 1


def test_what_is_not_traced_is_not_kept(scene: Scene) -> None:
    scene.submit("r", 100, traceparent="")
    assert len(scene.spans) == 0
    scene.admit("r", 130)
    assert scene.recorded == []


def test_each_branch_waits_for_itself(scene: Scene) -> None:
    scene.submit("r", 100, n=2)
    scene.admit("r#0", 110)
    scene.admit("r#1", 120, slot=1, incarnation=2)
    assert scene.recorded == [(100, 110, 0, None), (100, 120, 1, None)]


def test_a_preempted_request_waits_again_from_the_plan_that_took_its_slot(scene: Scene) -> None:
    scene.submit("r", 100)
    scene.admit("r", 110)
    scene.spans.published(GROUP, Plan(1, 5, released=(0,)), 200)
    scene.admit("r", 250, slot=3, incarnation=9)
    assert scene.recorded == [(100, 110, None, None), (200, 250, None, None)]
    assert scene.preempted == [False, True]
    finished = StepResult(1, 6, slots=(3,), incarnations=(9,), ids=(5,), finishes=(Finish.LENGTH,))
    scene.spans.settled(GROUP, finished)
    assert len(scene.spans) == 0


def test_a_slot_given_up_before_the_last_row_settles_is_no_preemption(scene: Scene) -> None:
    scene.submit("r", 100)
    scene.admit("r", 110)
    scene.submit("s", 120)
    scene.spans.published(GROUP, Plan(1, 5, released=(0,)), 200)  # its end by length is predicted
    scene.admit("s", 200, incarnation=2)  # in the same slot
    scene.spans.settled(
        GROUP, StepResult(1, 4, slots=(0,), incarnations=(1,), ids=(5,), finishes=(Finish.LENGTH,))
    )
    assert scene.recorded == [(100, 110, None, None), (120, 200, None, None)]
    assert len(scene.spans) == 1
    scene.spans.published(GROUP, Plan(1, 6, released=(0,)), 300)
    scene.admit("s", 310, slot=1, incarnation=3)
    assert scene.recorded[-1] == (300, 310, None, None)


def test_who_is_ended_while_waiting_or_running_is_forgotten(scene: Scene) -> None:
    scene.submit("waits", 100)
    scene.submit("runs", 100)
    scene.admit("runs", 110)
    ended = (Ended("waits", Finish.CANCELLED), Ended("runs", Finish.DEADLINE), Ended("else", Finish.ERROR))
    scene.spans.published(GROUP, Plan(1, 2, released=(0,), ended=ended), 140)
    assert scene.recorded == [(100, 110, None, None), (100, 140, None, "FINISH_REASON_CANCELLED")]
    assert len(scene.spans) == 0


def test_groups_have_slots_and_incarnations_of_their_own(scene: Scene) -> None:
    scene.submit("a", 100)
    scene.submit("b", 100)
    scene.admit("a", 110)
    scene.admit("b", 120, group="g1")
    scene.spans.settled(
        GROUP, StepResult(1, 2, slots=(0,), incarnations=(1,), ids=(5,), finishes=(Finish.STOP,))
    )
    assert len(scene.spans) == 1
    scene.spans.published("g1", Plan(1, 5, released=(0,)), 200)
    scene.admit("b", 250)
    assert scene.recorded == [(100, 110, None, None), (100, 120, None, None), (200, 250, None, None)]


def test_requests_of_a_closed_group_wait_again_from_then_on(scene: Scene) -> None:
    scene.submit("a", 100)
    scene.submit("b", 100)
    scene.admit("a", 110)
    scene.admit("b", 110, group="g1")
    scene.spans.group_closed(GROUP, 300)
    scene.admit("a", 350, group="g1", slot=1, incarnation=2)
    assert scene.recorded[-1] == (300, 350, None, None)
    assert scene.preempted == [False, False, True]


def test_a_request_that_ends_between_two_groups_is_forgotten(scene: Scene) -> None:
    scene.submit("a", 100)
    scene.admit("a", 110)
    scene.spans.group_closed(GROUP, 400)
    scene.spans.ended([WaitingEnd("a", Finish.DEADLINE, 3), WaitingEnd("x", Finish.ERROR, 0)], 420)
    assert scene.recorded[-1] == (400, 420, None, "FINISH_REASON_DEADLINE")
    assert len(scene.spans) == 0


def test_a_request_that_waited_when_its_group_was_closed_waits_on(scene: Scene) -> None:
    scene.submit("a", 100)
    scene.admit("a", 110)
    scene.spans.published(GROUP, Plan(1, 5, released=(0,)), 200)
    scene.spans.group_closed(GROUP, 300)
    scene.admit("a", 350, group="g1")
    assert scene.recorded[-1] == (200, 350, None, None)


def test_an_epochs_end_ends_what_waits(scene: Scene) -> None:
    scene.submit("waits", 100)
    scene.submit("runs", 100)
    scene.admit("runs", 110)
    scene.spans.close(170)
    assert scene.recorded == [(100, 110, None, None), (100, 170, None, "EPOCH_CLOSED")]
    assert len(scene.spans) == 0
    scene.submit("waits", 200)  # incarnations and slots begin anew
    scene.admit("waits", 210)
    assert scene.recorded[-1] == (200, 210, None, None)


def test_a_submission_that_is_read_twice_waits_once(scene: Scene) -> None:
    scene.submit("r", 100)
    scene.submit("r", 105)
    scene.admit("r", 110)
    assert scene.recorded == [(100, 110, None, None)]
