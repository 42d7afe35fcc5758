"""Virtual time: a clock whose threads are greenlets of one event loop.

Asynchronous code (gateways) runs on the clock's event loop as it is. Code that blocks (scheduler, worker
stages) runs in actors, greenlets that hand over to the event loop whenever they wait. Only one of all these
runs at a time, and who is next depends on nothing but what they do, so two runs are the same.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from albireo.virtual.loop import VirtualLoop
from albireo.virtual.waiting import Wait, Waiters

Item = TypeVar("Item")
Result = TypeVar("Result")

EPOCH = 1_700_000_000
"""Unix time at which virtual time begins unless another is given, in seconds."""


class VirtualClock:
    """See :class:`albireo.runtime.clock.Clock`. A context manager: its end ends all actors and tasks.

    The greenlet that makes the clock is the main one. When it waits by this clock (``sleep``, an event, a
    read of the store), the event loop and all actors run meanwhile. An exception that an actor or a task does
    not handle ends that wait, and is raised there.
    """

    def __init__(self, epoch: int = EPOCH) -> None:
        """``epoch``: Unix time in seconds at which virtual time begins."""
        self.loop = VirtualLoop(self._raise_idle)
        self.loop.set_exception_handler(self._on_loop_error)
        self.main = getcurrent()
        self.closed = False
        self._epoch_ns = epoch * 1_000_000_000
        self._actors: dict[Actor, None] = {}
        self._failure: BaseException | None = None

    def now(self) -> float:
        """Virtual seconds since the clock was made."""
        return self.loop.now

    def time_ns(self) -> int:
        return self._epoch_ns + round(self.loop.now * 1e9)

    def sleep(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        self.sleep_until(self.loop.now + seconds)

    def sleep_until(self, moment: float) -> None:
        Wait(self).wait(moment)

    def event(self) -> VirtualEvent:
        return VirtualEvent(self)

    def queue(self, size: int) -> VirtualQueue[Item]:
        return VirtualQueue(self, size)

    def start(self, name: str, body: Callable[[], None]) -> Actor:
        """Runs ``body`` as an actor. It begins once the caller waits."""
        actor = Actor(self, name, body)
        self._actors[actor] = None
        return actor

    def start_task(self, name: str, coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Runs a coroutine on the event loop. An exception that it raises ends the run, like an actor's."""
        task = self.loop.create_task(coroutine, name=name)
        task.add_done_callback(self._on_task_done)
        return task

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Runs the event loop until ``coroutine`` has returned. Called by the main greenlet."""
        task = self.loop.create_task(coroutine, name="main")
        task.add_done_callback(self._stop)
        try:
            self.drive(task.done)
        finally:  # where another task has failed, this one still runs: its end must not stop a later run
            task.remove_done_callback(self._stop)
        return task.result()

    def drive(self, is_over: Callable[[], bool]) -> None:
        """Runs the event loop until it is stopped and ``is_over``; raises what an actor or a task has failed
        with. A stop that was meant for an earlier call, which an exception ended, does not end this one."""
        self._raise_failure()
        while not is_over():
            self.loop.run_forever()
            self._raise_failure()

    def close(self) -> None:
        """Ends all actors (GreenletExit is raised where they wait) and tasks (they are cancelled)."""
        if self.closed:
            return
        self.closed = True
        for actor in list(self._actors):
            actor.kill()
        self.loop.run_until_complete(_cancel_all(asyncio.all_tasks(self.loop)))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            self._raise_failure()

    def on_actor_end(self, actor: Actor, error: BaseException | None) -> None:
        """An actor has ended; ``error``: what it raised."""
        self._actors.pop(actor, None)
        if error is not None:
            self._fail(f"actor {actor.name}", error)

    def _stop(self, _: asyncio.Task[Any]) -> None:
        self.loop.stop()

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(f"task {task.get_name()}", error)

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception") or RuntimeError(context["message"])
        self._fail(context["message"], error)

    def _fail(self, where: str, error: BaseException) -> None:
        """The first failure is raised by the main greenlet."""
        if self._failure is None:
            error.add_note(f"in virtual time, {where}")
            self._failure = error
            self.loop.stop()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _raise_idle(self) -> None:
        names = [actor.name for actor in self._actors]
        names += sorted(task.get_name() for task in asyncio.all_tasks(self.loop))
        waiting = ", ".join(names) or "the main greenlet alone"
        raise RuntimeError(f"nothing is due any more in virtual time; waiting for ever: {waiting}")


async def _cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Actor:
    """Code that blocks, in a greenlet of its own; see :class:`albireo.runtime.clock.Thread`."""

    def __init__(self, clock: VirtualClock, name: str, body: Callable[[], None]) -> None:
        self.name = name
        self._clock = clock
        self._body = body
        self._ended = VirtualEvent(clock)
        self._greenlet = greenlet(self._run, parent=clock.main)
        clock.loop.call_soon(self._greenlet.switch)

    def is_alive(self) -> bool:
        return not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def kill(self) -> None:
        """Raises GreenletExit where the actor waits. Called by the main greenlet, outside of the loop."""
        while not self._greenlet.dead:
            self._greenlet.throw(GreenletExit)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._body()
        except GreenletExit:
            pass
        except BaseException as raised:  # noqa: BLE001 - the main greenlet raises it
            error = raised
        self._ended.set()
        self._clock.on_actor_end(self, error)


class VirtualEvent:
    """See :class:`albireo.runtime.clock.Event`."""

    __slots__ = ("_clock", "_set", "_waiters")

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._set = False
        self._waiters = Waiters(clock)

    def set(self) -> None:
        self._set = True
        self._waiters.wake()

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            self._waiters.wait(None if timeout is None else self._clock.loop.now + timeout)
        return self._set


class VirtualQueue(Generic[Item]):
    """See :class:`albireo.runtime.clock.Queue`."""

    __slots__ = ("_clock", "_items", "_size", "_waiters")

    def __init__(self, clock: VirtualClock, size: int) -> None:
        self._clock = clock
        self._items: deque[Item] = deque()
        self._size = size
        self._waiters = Waiters(clock)

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        if not (self._has_space() or self._wait_for(self._has_space, block, timeout)):
            raise queue.Full
        self._items.append(item)
        self._waiters.wake()

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        if not (self._items or self._wait_for(self._has_item, block, timeout)):
            raise queue.Empty
        item = self._items.popleft()
        self._waiters.wake()
        return item

    def _has_space(self) -> bool:
        return self._size <= 0 or len(self._items) < self._size

    def _has_item(self) -> bool:
        return bool(self._items)

    def _wait_for(self, condition: Callable[[], bool], block: bool, timeout: float | None) -> bool:
        """The condition does not hold. Waits for it when ``block``; returns whether it does then."""
        until = None if timeout is None else self._clock.loop.now + timeout
        while block:
            woken = self._waiters.wait(until)
            if condition():
                return True
            block = woken
        return False
