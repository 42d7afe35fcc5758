"""Limits on the number of calls in a phase at once. A call over a limit is refused, or waits for its turn.

Only used on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.calls.refusal import exhausted

BOUNDS = (
    *("max_arriving", "message_seconds", "calls", "health_calls", "reflection_calls", "max_streams"),
    *("work", "work_seconds", "submission_seconds", "ending_seconds", "write_seconds"),
    *("max_requests", "queue_share", "tokens_per_minute"),
)
"""Names of the bounds on calls and of the quotas of tenants, as in metrics and refusals."""


class AdmissionLimit:
    """At most ``most`` calls at once; a further call is refused immediately."""

    def __init__(self, most: int, bound: str, calls: str, hits: Counter[str]) -> None:
        """``bound``: key of ``hits``, which counts refusals; ``calls``: what is limited, for the message."""
        self._most = most
        self._bound = bound
        self._calls = calls
        self._hits = hits
        self._admitted = 0

    @property
    def admitted(self) -> int:
        """How many calls are inside now."""
        return self._admitted

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Counts a call until the block ends. Raises Refusal if there are ``most`` already."""
        if self._admitted >= self._most:
            self._hits[self._bound] += 1
            raise exhausted(f"this gateway serves {self._most} {self._calls} at once ({self._bound})")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1


class QueuedLimit:
    """At most ``most`` holders at once; others wait in order of arrival, at most ``seconds`` each."""

    def __init__(self, most: int, seconds: float, bound: str, late: str, hits: Counter[str]) -> None:
        """``bound``: key of ``hits``, which counts refusals; ``late``: why a wait takes too long, for the
        message."""
        self._semaphore = asyncio.Semaphore(most)
        self._seconds = seconds
        self._bound = bound
        self._late = late
        self._hits = hits

    async def acquire(self) -> None:
        """Waits until there is room; ``release`` must follow. Raises Refusal if the wait takes too long."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._semaphore.acquire()
        except TimeoutError:
            self._hits[self._bound] += 1
            raise exhausted(f"no turn within {self._seconds:g} s: {self._late} ({self._bound})") from None

    def release(self) -> None:
        """Lets the next one in."""
        self._semaphore.release()
