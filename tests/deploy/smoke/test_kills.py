"""When the stack serves again after a kill, from the outcomes of requests."""

from __future__ import annotations

from deploy.smoke.kills import effects
from deploy.smoke.requests import Outcome, Probe, Stories


def test_an_answer_to_a_question_from_before_the_kill_does_not_say_that_the_stack_serves_again() -> None:
    in_flight, waited = Outcome(9.9, 10.1), Outcome(10.2, 38.0)
    probe = Probe("localhost:1", [in_flight, waited, Outcome(38.1, 38.2)])
    assert effects("worker", probe, Stories(), killed=10.0, healthy=37.0).served_again == 28.0


def test_the_stack_serves_again_once_no_question_fails_any_more() -> None:
    failed = Outcome(11.0, 11.5, error="UNAVAILABLE: no scheduler is alive")
    probe = Probe("localhost:1", [Outcome(10.1, 10.2), failed, Outcome(12.0, 13.0)])
    effect = effects("scheduler", probe, Stories(), killed=10.0, healthy=12.0)
    assert effect.served_again == 3.0
    assert effect.failed == {"UNAVAILABLE: no scheduler is alive": 1}
