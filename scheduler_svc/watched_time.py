"""The time for which the scheduler has watched its groups: pauses of its loop, and of Redis, do not count.

The fleet counts it on at each look; the watches of the groups compare with it.
"""

from __future__ import annotations

from collections import deque

from albireo.runtime.clock import Clock

LOOK_SECONDS = 0.25
"""How often the fleet looks at its groups."""
LATE_SECONDS = 2 * LOOK_SECONDS
"""More than this between two looks was a pause: no more of it counts."""
KEPT_PAUSES = 64


class WatchedTime:
    """Seconds, which go on only while looks come in time."""

    def __init__(self, clock: Clock) -> None:
        self.now = 0.0
        """Watched seconds until the last look."""
        self._clock = clock
        self._looked = clock.now()
        self._pauses: deque[tuple[float, float]] = deque(maxlen=KEPT_PAUSES)  # end by the clock, and length

    def look(self) -> None:
        """A look begins."""
        now = self._clock.now()
        passed = now - self._looked
        if passed > LATE_SECONDS:
            self._pauses.append((now, passed - LATE_SECONDS))
            passed = LATE_SECONDS
        self.now += passed
        self._looked = now

    def within(self, seconds: float) -> float:
        """How many of the last ``seconds`` before the last look were watched."""
        since = self._looked - seconds
        paused = sum(min(length, end - since) for end, length in self._pauses if end > since)
        return max(0.0, seconds - paused)
