"""The window: how many plans may be in flight.

The epoch reports to it how long the rank waited for each plan, and gives its size to the core.
"""

from __future__ import annotations

from collections import deque

WAITED_SECONDS = 100e-6
"""A rank that waited longer than this for a plan counts as having waited; less is a hand-over."""
RECENT_STEPS = 16
WAITS_TO_GROW = 3
QUIET_STEPS_TO_SHRINK = 256


class Window:
    """The number of plans in flight: fixed, or as few as keep the ranks from waiting.

    Every plan ahead makes an arrival wait one step longer, so the window grows only when ranks were seen
    waiting for plans in several of the recent steps, and shrinks again after a long time without a wait.
    """

    def __init__(self, size: int, *, largest: int | None = None) -> None:
        """``largest``: up to which it may grow; None keeps it at ``size``."""
        self.size = size
        self._smallest = size
        self.largest = size if largest is None else largest
        self._recent: deque[bool] = deque(maxlen=RECENT_STEPS)
        self._quiet = 0

    def observe(self, waited_seconds: float) -> None:
        """How long the compute stage waited for the plan of one more step."""
        waited = waited_seconds > WAITED_SECONDS
        self._recent.append(waited)
        self._quiet = 0 if waited else self._quiet + 1
        if sum(self._recent) >= WAITS_TO_GROW and self.size < self.largest:
            self.size += 1
        elif self._quiet >= QUIET_STEPS_TO_SHRINK and self.size > self._smallest:
            self.size -= 1
        else:
            return
        # What was seen belongs to the old size.
        self._recent.clear()
        self._quiet = 0
