"""A clock, and everything that waits by it.

Every loop of a service gets its clock from outside and waits by nothing else. So the same loop runs in real
time (:class:`SystemClock`: threads) and in virtual time (:mod:`albireo.virtual`: one thread, no waiting).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

Item = TypeVar("Item")

SPIN_SECONDS = 150e-6
"""The operating system ends a sleep up to this much late; an exact wait spins for the rest."""


class Event(Protocol):
    """A flag that can be waited for; as :class:`threading.Event`."""

    def set(self) -> None: ...

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the flag is set, at most ``timeout`` seconds; returns whether it is set."""
        ...


class Queue(Protocol[Item]):
    """A bounded queue between two threads; as :class:`queue.Queue`."""

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Waits for space, at most ``timeout`` seconds. Raises ``queue.Full`` after that."""
        ...

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Waits for an item, at most ``timeout`` seconds. Raises ``queue.Empty`` after that."""
        ...


class Thread(Protocol):
    """Something that runs at the same time; as :class:`threading.Thread`."""

    def is_alive(self) -> bool: ...

    def join(self, timeout: float | None = None) -> None:
        """Waits until it has ended, at most ``timeout`` seconds."""
        ...


class Clock(Protocol):
    """The time, and what waits for a time. Times and durations are in seconds, ``*_ns`` in nanoseconds."""

    def now(self) -> float:
        """Never runs backwards; zero is arbitrary. For durations and for deadlines of this process alone:
        what others must agree on is in the time of the store (:meth:`albireo.store.interface.Store.time`)."""
        ...

    def time_ns(self) -> int:
        """Since the Unix epoch, by this host. For timestamps of measurements."""
        ...

    def sleep(self, seconds: float) -> None:
        """Waits for ``seconds``; lets others run where it is zero. Raises ValueError if negative."""
        ...

    def sleep_until(self, moment: float) -> None:
        """Waits until ``now()`` is ``moment``, to within some microseconds."""
        ...

    def event(self) -> Event:
        """A new event that is not set."""
        ...

    def queue(self, size: int) -> Queue[Item]:
        """A new queue of at most ``size`` items."""
        ...

    def start(self, name: str, body: Callable[[], None]) -> Thread:
        """Runs ``body`` at the same time as the caller. It does not keep the process alive."""
        ...


class SystemClock:
    """Real time; threads of the operating system."""

    now = staticmethod(time.monotonic)
    time_ns = staticmethod(time.time_ns)
    sleep = staticmethod(time.sleep)
    event = staticmethod(threading.Event)

    def sleep_until(self, moment: float) -> None:
        seconds = moment - time.monotonic()
        if seconds > SPIN_SECONDS:
            time.sleep(seconds - SPIN_SECONDS)
        while time.monotonic() < moment:
            time.sleep(0)  # lets other threads have the interpreter

    def queue(self, size: int) -> queue.Queue[Item]:
        return queue.Queue(size)

    def start(self, name: str, body: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=body, name=name, daemon=True)
        thread.start()
        return thread


SYSTEM_CLOCK = SystemClock()
