"""The event loop of virtual time, as asyncio uses it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator

import pytest

from albireo.virtual.loop import VirtualLoop


def idle() -> None:
    raise RuntimeError("idle")


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop(idle)
    yield made
    made.close()


def test_timers_of_one_moment_run_in_the_order_of_their_registration(loop: VirtualLoop) -> None:
    ran: list[int] = []
    for number in range(100):
        loop.call_at(5.0, ran.append, number)
    loop.call_at(1.0, ran.append, -1)
    loop.run_until_complete(asyncio.sleep(5))
    assert ran == [-1, *range(100)]
    assert loop.time() == 5


def test_a_timer_can_be_cancelled_by_one_of_the_same_moment(loop: VirtualLoop) -> None:
    ran: list[str] = []
    timers: list[asyncio.TimerHandle] = []
    loop.call_at(1.0, lambda: timers[0].cancel())
    timers.append(loop.call_at(1.0, ran.append, "second"))
    loop.call_at(1.0, ran.append, "third")
    loop.run_until_complete(asyncio.sleep(2))
    assert ran == ["third"]


def test_time_does_not_move_to_a_cancelled_timer(loop: VirtualLoop) -> None:
    loop.call_at(3.0, print).cancel()
    with pytest.raises(RuntimeError, match="idle"):
        loop.run_forever()
    assert loop.time() == 0


def test_cancelled_timers_are_removed_before_they_are_due(loop: VirtualLoop) -> None:
    async def many_timeouts() -> None:
        for _ in range(2000):
            async with asyncio.timeout(600):
                await asyncio.sleep(0)

    ran: list[int] = []
    for number in range(200):
        loop.call_at(1.0, ran.append, number)
    cancelled: list[weakref.ref[asyncio.TimerHandle]] = []
    for _ in range(2000):
        handle = loop.call_at(600.0, print)
        handle.cancel()
        cancelled.append(weakref.ref(handle))
    loop.run_until_complete(many_timeouts())
    assert sum(reference() is not None for reference in cancelled) < 500
    loop.run_until_complete(asyncio.sleep(1))
    assert ran == list(range(200))


def test_time_stands_still_while_something_is_ready(loop: VirtualLoop) -> None:
    async def busy() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)
        assert loop.time() == 0

    loop.call_at(1.0, print)
    loop.run_until_complete(busy())


def test_a_timer_of_the_past_runs_at_once(loop: VirtualLoop) -> None:
    ran: list[float] = []
    loop.run_until_complete(asyncio.sleep(2))
    loop.call_at(1.0, lambda: ran.append(loop.time()))
    loop.run_until_complete(asyncio.sleep(0.5))
    assert ran == [2]


def test_an_executor_computes_at_once(loop: VirtualLoop) -> None:
    async def compute() -> int:
        assert await asyncio.to_thread(sum, (1, 2)) == 3
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        return int(await loop.run_in_executor(None, sum, (3, 4)))

    assert loop.run_until_complete(compute()) == 7
    assert loop.time() == 0
