"""Both clocks, real and virtual: what waits by them behaves the same."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from functools import partial

import pytest

from albireo.runtime.clock import SYSTEM_CLOCK, Clock, Queue
from albireo.virtual.clock import VirtualClock

TICK = 0.02  # seconds, far longer than a thread takes to begin


@pytest.fixture(params=["real", "virtual"])
def clock(request: pytest.FixtureRequest) -> Iterator[Clock]:
    if request.param == "real":
        yield SYSTEM_CLOCK
    else:
        with VirtualClock() as virtual:
            yield virtual


def test_a_sleep_takes_as_long_as_it_says(clock: Clock) -> None:
    began, began_ns = clock.now(), clock.time_ns()
    clock.sleep(TICK)
    assert clock.now() - began == pytest.approx(TICK, abs=TICK)
    assert clock.now() - began > TICK * 0.99
    assert (clock.time_ns() - began_ns) / 1e9 == pytest.approx(TICK, abs=TICK)


def test_a_negative_sleep_is_an_error(clock: Clock) -> None:
    with pytest.raises(ValueError, match="negative"):
        clock.sleep(-1)


def test_a_sleep_until_a_moment_ends_at_it(clock: Clock) -> None:
    moment = clock.now() + TICK
    clock.sleep_until(moment)
    assert moment <= clock.now() < moment + TICK
    clock.sleep_until(moment)  # is over
    assert clock.now() < moment + TICK


def test_threads_wake_in_the_order_of_their_times(clock: Clock) -> None:
    woken: list[int] = []
    began = clock.now()

    def sleeper(ticks: int) -> None:
        clock.sleep_until(began + ticks * TICK)  # threads begin late on a busy machine
        woken.append(ticks)

    threads = [clock.start(f"sleeper {ticks}", partial(sleeper, ticks)) for ticks in (2, 0, 1)]
    for thread in threads:
        thread.join(5)
    assert woken == [0, 1, 2]


def test_an_event_wakes_all_that_wait(clock: Clock) -> None:
    event = clock.event()
    seen: list[bool] = []
    threads = [clock.start(f"waiter {i}", lambda: seen.append(event.wait(5))) for i in range(3)]
    clock.sleep(TICK)
    assert seen == []
    assert not event.is_set()
    event.set()
    for thread in threads:
        thread.join(5)
    assert seen == [True] * 3
    assert event.is_set()
    assert event.wait(0)


def test_an_event_that_is_not_set_is_waited_for_as_long_as_asked(clock: Clock) -> None:
    began = clock.now()
    assert not clock.event().wait(TICK)
    assert clock.now() - began > TICK * 0.99


def test_a_queue_keeps_the_order_and_its_bound(clock: Clock) -> None:
    items: Queue[int] = clock.queue(2)
    got: list[int] = []

    def put() -> None:
        for number in range(20):
            items.put(number)

    writer = clock.start("writer", put)
    clock.sleep(TICK)
    with pytest.raises(queue.Full):
        items.put(99, timeout=TICK)
    with pytest.raises(queue.Full):
        items.put(99, block=False)
    while len(got) < 20:
        got.append(items.get(timeout=5))
    writer.join(5)
    assert got == list(range(20))
    with pytest.raises(queue.Empty):
        items.get(timeout=TICK)
    with pytest.raises(queue.Empty):
        items.get(block=False)


def test_a_thread_is_joined_for_as_long_as_asked(clock: Clock) -> None:
    stop = clock.event()

    def wait() -> None:
        stop.wait(5)

    thread = clock.start("waiter", wait)
    began = clock.now()
    thread.join(TICK)
    assert clock.now() - began > TICK * 0.99
    assert thread.is_alive()
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert clock.now() - began < 4
