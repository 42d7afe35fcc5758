"""How many calls a gateway lets be in one phase at a time; the rest is refused, or waits its turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.calls.refusal import exhausted

BOUNDS = (
    *("max_arriving", "message_seconds", "calls", "health_calls", "reflection_calls", "max_streams"),
    *("work", "work_seconds", "submission_seconds", "ending_seconds", "write_seconds"),
)
"""Names of the bounds of calls, as metrics and refusals have them."""


class Places:
    """A number of places that are free or taken: what finds none is refused at once."""

    def __init__(self, most: int, bound: str, calls: str, hits: Counter[str]) -> None:
        """``bound``: its name in ``hits``, which counts refusals; ``calls``: what has these places."""
        self._most = most
        self._bound = bound
        self._calls = calls
        self._hits = hits
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place, until the block's end. Raises Refusal where all are taken."""
        if self._taken >= self._most:
            self._hits[self._bound] += 1
            raise exhausted(f"this gateway serves {self._most} {self._calls} at once ({self._bound})")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Turns:
    """At most so many at once; the others wait in order, each a bounded time."""

    def __init__(self, most: int, seconds: float, bound: str, late: str, hits: Counter[str]) -> None:
        """``bound``: its name in ``hits``, which counts refusals; ``late``: why no turn comes in time."""
        self._turns = asyncio.Semaphore(most)
        self._seconds = seconds
        self._bound = bound
        self._late = late
        self._hits = hits

    async def take(self) -> None:
        """Waits for a turn, to be given back by ``release``. Raises Refusal where none came in time."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._turns.acquire()
        except TimeoutError:
            self._hits[self._bound] += 1
            raise exhausted(f"no turn within {self._seconds:g} s: {self._late} ({self._bound})") from None

    def release(self) -> None:
        self._turns.release()
