"""An asyncio event loop whose time is virtual: it never waits, its time jumps to the next timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Any, Protocol, TypeVarTuple, Unpack

Arguments = TypeVarTuple("Arguments")

PRUNE_COUNT = 100
"""With fewer timers, cancelled ones stay until they are due."""


class Callback(Protocol):
    """What the loop calls, once, unless it is cancelled before: :class:`asyncio.Handle`, or the like."""

    _cancelled: bool

    def _run(self) -> None: ...


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs callbacks, tasks and timers in an order that depends on nothing but what they do.

    ``time()`` begins at 0: floats near zero are exact to less than a picosecond for an hour. Timers of the
    same moment run in the order of their registration. Sockets and other threads are not served.

    asyncio has no public way to replace the loop's wait for sockets. This one has a round of its own
    (``_run_once``), with asyncio's queue of what is ready (``_ready``).
    """

    _ready: deque[Callback]
    _stopping: bool  # the loop ends after this round

    def __init__(self, on_idle: Callable[[], None]) -> None:
        """``on_idle`` is called when nothing is ready and no timer is set; it must raise."""
        super().__init__()
        self.now = 0.0  # virtual seconds since the loop was made; read only
        # When it is due, its number, what to call. The number orders timers of one moment by registration.
        self._timers: list[tuple[float, int, Callback]] = []
        self._prune_at = PRUNE_COUNT  # number of timers
        self._registered = 0
        self._on_idle = on_idle

    def time(self) -> float:
        return self.now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.add_timer(when, handle)
        return handle

    def add_timer(self, when: float, callback: Callback) -> None:
        """Makes ``callback`` ready at ``when``."""
        self._registered += 1
        if len(self._timers) >= self._prune_at:
            self._prune()
        heappush(self._timers, (when, self._registered, callback))

    def add_ready(self, callback: Callback) -> None:
        """``callback`` runs after all that is ready already."""
        self._ready.append(callback)

    def skip_to(self, when: float) -> bool:
        """Moves time to ``when`` if nothing runs until then; returns whether it did."""
        if self._ready or self._stopping or self._next_due() <= when:
            return False
        self.now = max(self.now, when)
        return True

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Arguments]], Any], *args: *Arguments
    ) -> asyncio.Future[Any]:
        """Calls ``func`` at once: computing takes no virtual time, and threads run in no certain order."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the awaiting task's
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        """One round: runs what is ready, and then what is due. Time moves where nothing is ready."""
        ready, timers = self._ready, self._timers
        while timers:
            when, _, callback = timers[0]
            if when > self.now and not callback._cancelled:
                if ready or self._stopping:
                    break
                self.now = when
            heappop(timers)
            if not callback._cancelled:
                ready.append(callback)
        if not ready and not self._stopping:
            self._on_idle()
        for _ in range(len(ready)):
            callback = ready.popleft()
            if not callback._cancelled:
                callback._run()

    def _next_due(self) -> float:
        """When the next timer is due; infinity where there is none."""
        timers = self._timers
        while timers:
            when, _, callback = timers[0]
            if not callback._cancelled:
                return when
            heappop(timers)
        return float("inf")

    def _prune(self) -> None:
        """Removes cancelled timers. Called when there are twice as many timers as the last call left, so that
        it costs a constant time per timer on average."""
        self._timers = [timer for timer in self._timers if not timer[2]._cancelled]
        heapify(self._timers)
        self._prune_at = max(PRUNE_COUNT, 2 * len(self._timers))
