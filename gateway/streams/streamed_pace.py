"""How fast the tokens of an answer come whose context is too long for the memory of its group's device.

The branch has one, to which the route table adds each such token; on the event loop.
"""

from __future__ import annotations

import time


class StreamedPace:
    """Counts them, and the time from the first to the last."""

    __slots__ = ("_first", "_last", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self._first = self._last = 0.0  # monotonic seconds

    def add(self) -> None:
        """One more has come."""
        self._last = time.monotonic()
        if not self.tokens:
            self._first = self._last
        self.tokens += 1

    @property
    def token_seconds(self) -> float:
        """The mean from one to the next; 0 where there are fewer than two."""
        return (self._last - self._first) / (self.tokens - 1) if self.tokens > 1 else 0.0
