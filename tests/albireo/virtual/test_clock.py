"""What virtual time adds to a clock: no waiting, one certain order, failures that end the run."""

from __future__ import annotations

import asyncio
import queue
import random
import time
from functools import partial

import pytest

from albireo.virtual.clock import EPOCH, VirtualClock, VirtualEvent, VirtualQueue


def test_an_hour_takes_no_time() -> None:
    began = time.monotonic()
    with VirtualClock() as clock:
        clock.sleep(3600)
        assert clock.now() == 3600
        assert clock.time_ns() == (EPOCH + 3600) * 10**9
    assert time.monotonic() - began < 5


def wait_for(event: VirtualEvent) -> None:
    event.wait()


def story_of(seed: int) -> list[tuple[float, str]]:
    """Who did what when, in a crowd of actors and tasks that draw their waits from a seed."""
    story: list[tuple[float, str]] = []
    with VirtualClock() as clock:
        items: VirtualQueue[str] = clock.queue(3)
        draw = random.Random(seed)

        def producer(name: str) -> None:
            for number in range(10):
                clock.sleep(draw.choice([0, 0.5, draw.random()]))
                items.put(f"{name}{number}")

        def consumer(name: str) -> None:
            while clock.now() < 20:
                try:
                    story.append((clock.now(), name + items.get(timeout=draw.random())))
                except queue.Empty:
                    story.append((clock.now(), name))

        async def poller() -> None:
            for _ in range(10):
                await asyncio.sleep(draw.choice([0.5, 1.0]))
                story.append((clock.now(), "poller"))

        for name in "ab":
            clock.start(name, partial(producer, name))
            clock.start(f"to {name}", partial(consumer, f"to {name} "))
        clock.start_task("poller", poller())
        clock.sleep(30)
    return story


def test_the_order_depends_on_the_seed_alone() -> None:
    assert story_of(1) == story_of(1)
    assert story_of(1) != story_of(2)


def test_a_sleep_ends_after_what_was_due_at_the_same_moment_before() -> None:
    def sleeper() -> None:
        clock.sleep(1)
        ran.append("sleeper")

    ran: list[str] = []
    with VirtualClock() as clock:
        clock.loop.call_at(1.0, ran.append, "timer")
        clock.start("sleeper", sleeper)
        clock.sleep(2)
    assert ran == ["timer", "sleeper"]


def test_a_sleep_moves_no_time_before_the_main_greenlet_has_gone_on() -> None:
    def sleeper() -> None:
        event.wait()
        clock.sleep(10)

    with VirtualClock() as clock:
        event = clock.event()
        clock.start("sleeper", sleeper)
        clock.loop.call_at(1.0, event.set)
        event.wait()
        assert clock.now() == 1


def test_an_actor_that_fails_ends_the_run() -> None:
    def fail() -> None:
        clock.sleep(1)
        raise ValueError("broken")

    with VirtualClock() as clock:
        clock.start("culprit", fail)
        with pytest.raises(ValueError, match="broken") as raised:
            clock.sleep(5)
        assert clock.now() == 1
        assert "culprit" in raised.value.__notes__[0]
        clock.sleep(1)  # the others go on


def test_a_task_that_fails_ends_the_run() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise ValueError("broken")

    with VirtualClock() as clock:
        clock.start_task("culprit", fail())
        with pytest.raises(ValueError, match="broken") as raised:
            clock.sleep(5)
        assert "culprit" in raised.value.__notes__[0]


def test_a_callback_that_fails_ends_the_run() -> None:
    with VirtualClock() as clock:
        clock.loop.call_later(1, lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            clock.sleep(5)


def test_an_actor_that_fails_while_it_is_joined_does_not_shorten_the_next_sleep() -> None:
    def fail() -> None:
        clock.sleep(1)
        raise ValueError("broken")

    with VirtualClock() as clock:
        culprit = clock.start("culprit", fail)
        with pytest.raises(ValueError, match="broken"):
            culprit.join(10)
        clock.sleep(5)
        assert clock.now() == 6


def test_a_callback_that_ends_a_wait_and_fails_does_not_shorten_the_next_sleep() -> None:
    def set_and_fail() -> None:
        event.set()
        raise ValueError("broken")

    with VirtualClock() as clock:
        event = clock.event()
        clock.loop.call_later(1, set_and_fail)
        with pytest.raises(ValueError, match="broken"):
            event.wait()
        clock.sleep(5)
        assert clock.now() == 6


def test_a_coroutine_that_a_failure_left_running_does_not_shorten_a_later_sleep() -> None:
    with VirtualClock() as clock:
        clock.loop.call_later(1, lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            clock.run(asyncio.sleep(3))
        clock.sleep(5)
        assert clock.now() == 6


def test_a_failure_is_raised_as_it_is_though_a_coroutine_runs() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise ValueError("a task failed")

    def run() -> None:
        with VirtualClock() as clock:
            clock.start_task("fails", fail())
            clock.run(asyncio.sleep(10))

    with pytest.raises(ValueError, match="a task failed"):
        run()


def test_an_actor_that_fails_when_it_is_unwound_is_not_lost() -> None:
    def fail() -> None:
        try:
            clock.sleep(5)
        finally:
            raise ValueError("broken")

    clock = VirtualClock()
    clock.start("culprit", fail)
    clock.sleep(1)
    with pytest.raises(ValueError, match="broken"), clock:
        pass


def test_waiting_for_ever_names_those_that_wait() -> None:
    with VirtualClock() as clock:
        clock.start("first", partial(wait_for, clock.event()))
        clock.start("second", lambda: clock.queue(1).get())
        with pytest.raises(RuntimeError, match="for ever: first, second"):
            clock.event().wait()


def test_a_coroutine_is_run_to_its_end() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.Event().wait()
        await asyncio.sleep(1)
        return clock.now()

    with VirtualClock() as clock:
        assert clock.run(main()) == 3


def test_an_exception_of_the_coroutine_is_raised() -> None:
    async def main() -> None:
        raise ValueError("broken")

    with VirtualClock() as clock, pytest.raises(ValueError, match="broken"):
        clock.run(main())


def test_asynchronous_code_cannot_block() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="must await"):
            clock.sleep(1)
        event.set()  # does not block
        assert event.wait()

    with VirtualClock() as clock:
        event = clock.event()
        clock.run(main())


def test_at_the_end_actors_and_tasks_are_unwound() -> None:
    ended: list[str] = []

    def actor() -> None:
        try:
            clock.sleep(100)
        finally:
            ended.append("actor")
            clock.sleep(1)  # an actor that is unwound waits no more
            ended.append("not reached")

    async def task() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append("task")

    with VirtualClock() as clock:
        clock.start("actor", actor)
        clock.start_task("task", task())
        clock.run(asyncio.sleep(1))
        clock.start("never begun", lambda: ended.append("not reached"))
    assert ended == ["actor", "task"]
