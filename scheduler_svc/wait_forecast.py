"""How long a request that arrives now is expected to wait for a slot.

The service asks it whenever it publishes the load; operators scale by it.
"""

from __future__ import annotations

import math

DECAY_SECONDS = 30.0
"""What was seen so long ago counts for a third."""
MAX_WAIT_SECONDS = 3600.0
UNKNOWN = -1.0


class WaitForecast:
    """By the recent rate at which requests leave the queue while there is one: a mean over time whose weights
    decay exponentially. Time without a queue says nothing about that rate, and does not count."""

    def __init__(self, now: float) -> None:
        self._at = now
        self._seconds = 0.0  # with a queue, decayed
        self._departures = 0.0  # in these, decayed

    def observe(self, now: float, *, waiting: int, departures: int) -> None:
        """``departures``: requests that left the queue since the last call. ``waiting``: in the queue."""
        passed = now - self._at
        self._at = now
        if not waiting:
            return
        decay = math.exp(-passed / DECAY_SECONDS)
        self._seconds = self._seconds * decay + passed
        self._departures = self._departures * decay + departures

    def seconds(self, *, waiting: int, free_slots: int) -> float:
        """UNKNOWN where all slots are taken and no request was seen to leave a queue."""
        if not waiting and free_slots:
            return 0.0
        if not self._departures:
            return UNKNOWN
        return min(MAX_WAIT_SECONDS, (waiting + 1) * self._seconds / self._departures)
