"""How code that blocks waits in virtual time: its greenlet hands over to the event loop, which resumes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from greenlet import GreenletExit, getcurrent, greenlet

from albireo.virtual.loop import VirtualLoop


class Driver(Protocol):
    """What runs the greenlets of one virtual time: the clock."""

    @property
    def loop(self) -> VirtualLoop: ...

    @property
    def main(self) -> greenlet:
        """The greenlet that runs the event loop. All others are actors."""
        ...

    @property
    def closed(self) -> bool: ...

    def drive(self, is_over: Callable[[], bool]) -> None:
        """Runs the event loop until it is stopped and ``is_over``. Called by ``main``. Raises the exception
        that an actor, a task or a callback has failed with."""
        ...


class Wait:
    """One wait of the calling greenlet, until ``end`` is called or a time has passed.

    An actor hands over to the event loop. The main greenlet, when it waits, runs the event loop meanwhile.
    Where nothing else runs until then, both only move the time.

    For the loop, a wait is the callback that resumes its greenlet.
    """

    __slots__ = ("_cancelled", "_driver", "_ended", "_greenlet", "_over", "_waiting")

    def __init__(self, driver: Driver) -> None:
        """Raises RuntimeError in a callback or task of the event loop: asynchronous code has to await."""
        self._cancelled = False  # never
        self._driver = driver
        self._greenlet = getcurrent()
        self._over = False  # ended, or timed out
        self._ended = False
        self._waiting = False  # the greenlet is to be resumed
        if self._greenlet is driver.main and driver.loop.is_running():
            raise RuntimeError("a callback or task of the event loop cannot block: it must await")

    def wait(self, until: float | None) -> bool:
        """Waits for ``end``, until that time of the event loop at most; returns whether it was called."""
        driver = self._driver
        if driver.closed:  # an actor that is unwound waits for nothing more
            raise RuntimeError("the clock is closed") if self._greenlet is driver.main else GreenletExit
        timer = None
        if until is not None:
            if not self._over and driver.loop.skip_to(until):
                return False
            timer = Timeout(self)
            driver.loop.add_timer(until, timer)
        self._waiting = True
        try:
            if self._greenlet is driver.main:
                driver.drive(lambda: not self._waiting)
            else:
                driver.main.switch()
        finally:
            self._waiting = False
            if timer is not None:
                timer.cancel()
        return self._ended

    def end(self) -> None:
        """Ends the wait: its greenlet goes on after the callbacks that are ready already."""
        if not self._over:
            self._over = self._ended = True
            self._driver.loop.add_ready(self)

    def expire(self) -> None:
        """Its time has passed. Called by the loop."""
        if not self._over:
            self._over = True
            self._run()

    def _run(self) -> None:
        if not self._waiting:  # an exception has resumed the greenlet since ``end`` was called
            return
        self._waiting = False
        if self._greenlet is self._driver.main:
            self._driver.loop.stop()
        else:
            self._greenlet.switch()


class Timeout:
    """The callback that ends a wait when its time has passed."""

    __slots__ = ("_cancelled", "_wait")

    def __init__(self, wait: Wait) -> None:
        self._cancelled = False
        self._wait = wait

    def cancel(self) -> None:
        """The wait is over."""
        self._cancelled = True

    def _run(self) -> None:
        self._wait.expire()


class Waiters:
    """The greenlets that wait for one thing to change, in the order in which they began."""

    __slots__ = ("_driver", "_waits")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._waits: dict[Wait, None] = {}

    def wait(self, until: float | None) -> bool:
        """Waits for ``wake``, until that time at most; returns whether it was called."""
        wait = Wait(self._driver)
        self._waits[wait] = None
        try:
            return wait.wait(until)
        finally:
            self._waits.pop(wait, None)

    def wake(self) -> None:
        """Ends all waits."""
        if not self._waits:
            return
        waits, self._waits = self._waits, {}
        for wait in waits:
            wait.end()
