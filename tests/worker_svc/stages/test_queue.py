"""Queues between stages: bounded, in order, and let go when the rank stops."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from albireo.runtime.clock import SYSTEM_CLOCK
from worker_svc.stages.queue import StageQueue, start_stage

WAIT = 10.0  # far more than any of this takes


def in_thread(body: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread


def test_items_come_in_order_and_the_bound_holds() -> None:
    queue: StageQueue[int] = StageQueue(2, threading.Event(), SYSTEM_CLOCK)
    put: list[int] = []

    def fill() -> None:
        for item in range(20):
            queue.put(item)
            put.append(item)

    thread = in_thread(fill)
    for item in range(20):
        assert len(put) <= item + 2
        assert queue.get() == item
    thread.join(WAIT)
    assert not thread.is_alive()


def test_a_full_queue_holds_its_writer() -> None:
    queue: StageQueue[int] = StageQueue(1, threading.Event(), SYSTEM_CLOCK)
    queue.put(1)
    through = threading.Event()

    def put() -> None:
        queue.put(2)
        through.set()

    thread = in_thread(put)
    assert not through.wait(0.6)  # longer than a poll
    assert queue.get() == 1
    assert through.wait(WAIT)
    assert queue.get() == 2
    thread.join(WAIT)


def test_a_waiting_reader_is_let_go() -> None:
    stop = threading.Event()
    queue: StageQueue[int] = StageQueue(1, stop, SYSTEM_CLOCK)
    got: list[int | None] = []
    thread = in_thread(lambda: got.append(queue.get()))
    stop.set()
    thread.join(WAIT)
    assert got == [None]


def test_a_waiting_writer_is_let_go_and_its_item_dropped() -> None:
    stop = threading.Event()
    queue: StageQueue[int] = StageQueue(1, stop, SYSTEM_CLOCK)
    queue.put(1)
    thread = in_thread(lambda: queue.put(2))
    stop.set()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert queue.get() is None


def test_a_stage_ends_with_its_body() -> None:
    done = threading.Event()
    thread = start_stage("test", done.set, threading.Event(), SYSTEM_CLOCK)
    thread.join(WAIT)
    assert done.is_set()
    assert not thread.is_alive()


FAILING = """
import threading, time
from albireo.runtime.clock import SYSTEM_CLOCK
from worker_svc.stages.queue import start_stage

stop = threading.Event()

def fail():
    {before}
    raise ValueError("the stage's own words")

start_stage("input", fail, stop, SYSTEM_CLOCK).join()
print("alive", flush=True)
"""


@pytest.mark.parametrize(("before", "code", "out"), [("pass", 1, ""), ("stop.set()", 0, "alive\n")])
def test_a_failing_stage_ends_the_process_unless_it_stops_anyway(before: str, code: int, out: str) -> None:
    script = FAILING.format(before=before)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (code, out)
    assert ("the stage's own words" in found.stderr) is (code == 1)
    assert ("the input stage failed" in found.stderr) is (code == 1)
