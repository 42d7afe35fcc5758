"""An asyncio event loop whose time is virtual: it never waits, its time jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Any, TypeVarTuple, Unpack

Arguments = TypeVarTuple("Arguments")

Timer = tuple[float, int, asyncio.TimerHandle, Callable[..., object], tuple[Any, ...], Context | None]
"""When it is due, its number, and what to call. The number orders timers of one moment by registration."""

PRUNE_COUNT = 100
"""With fewer timers, cancelled ones stay until they are due."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs callbacks, tasks and timers in an order that depends on nothing but what they do.

    ``time()`` begins at 0: floats near zero are exact to less than a picosecond for an hour. Timers of the
    same moment run in the order of their registration. Sockets and other threads are not served.
    """

    def __init__(self, on_idle: Callable[[], None]) -> None:
        """``on_idle`` is called when nothing is ready and no timer is set; it must raise."""
        super().__init__(_NoInput(self._select))
        self._now = 0.0
        self._timers: list[Timer] = []
        self._prune_at = PRUNE_COUNT  # number of timers
        self._registered = 0
        self._on_idle = on_idle

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._registered += 1
        if len(self._timers) >= self._prune_at:
            self._prune()
        heappush(self._timers, (when, self._registered, handle, callback, args, context))
        return handle

    def _prune(self) -> None:
        """Removes cancelled timers. Called when there are twice as many timers as the last call left, so that
        it costs a constant time per timer on average."""
        self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
        heapify(self._timers)
        self._prune_at = max(PRUNE_COUNT, 2 * len(self._timers))

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

    def _select(self, timeout: float | None) -> None:
        """What the loop calls between callbacks. ``timeout``: None when nothing is ready."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heappop(timers)
        if timeout is None:
            if not timers:
                self._on_idle()
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            _, _, handle, callback, args, context = heappop(timers)
            if not handle.cancelled():
                self.call_soon(_call, handle, callback, args, context=context)


def _call(handle: asyncio.TimerHandle, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
    """A timer that is due can still be cancelled by another of the same moment."""
    if not handle.cancelled():
        callback(*args)


class _NoInput(selectors.BaseSelector):
    """A selector without any input, by which the loop asks for its timers."""

    def __init__(self, select: Callable[[float | None], None]) -> None:
        self._select = select
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[fd] = key = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._select(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys
