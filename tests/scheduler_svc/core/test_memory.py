"""What has ended is freed at once: the scheduler's process hardly ever runs the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from scheduler_svc.core.request import Occupancy, Request

from .samples import prompt
from .world import world


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_requests_that_have_ended_leave_no_cycle() -> None:
    w = world(groups=2, num_blocks=12, max_model_len=64, ahead=2)
    for number in range(8):
        w.submit(f"r{number}", prompt(20, number), n=1 + number % 3, max_tokens=20)
    w.cancel("r5")
    w.step()
    assert _objects() > 8
    w.leave("g1", died=True)
    w.drain(500)
    left = _objects()  # the heap of a queue keeps a few
    gc.collect()
    assert _objects() == left


def _objects() -> int:
    return sum(type(found) in (Request, Occupancy) for found in gc.get_objects())
