"""Which of the waiting requests is placed next."""

from __future__ import annotations

from array import array

from albireo.contract.plan import SamplingParams, Submission
from scheduler_svc.core.request import Request
from scheduler_svc.core.waiting import WaitingQueue


def request(name: str, arrival: float) -> Request:
    submission = Submission(name, (1, 2), SamplingParams(max_tokens=1, seed=0))
    return Request(submission, (arrival, 0), array("I", (1, 2)), 3, b"")


def test_those_that_came_back_go_first() -> None:
    queue = WaitingQueue()
    a, b, c, d = (request(name, number) for number, name in enumerate("abcd"))
    queue.push(b)
    queue.push(a)
    queue.push_front(d)
    queue.push_front(c)
    assert [one.name for one in queue.in_order()] == ["c", "d", "a", "b"]
    assert (len(queue), set(queue), d in queue) == (4, {a, b, c, d}, True)
    queue.remove(d)
    queue.remove(a)
    queue.remove(a)
    assert [one.name for one in queue.in_order()] == ["c", "b"]
    assert (len(queue), set(queue), d in queue) == (2, {b, c}, False)
