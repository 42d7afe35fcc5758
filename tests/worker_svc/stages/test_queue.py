"""Queues between stages: bounded, in order, and let go when the rank stops."""

from __future__ import annotations

import threading
from collections.abc import Callable

from albireo.runtime.clock import SYSTEM_CLOCK
from worker_svc.stages.queue import StageQueue

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
