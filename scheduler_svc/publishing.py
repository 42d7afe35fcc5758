"""The publication of plans: those of several groups in one round trip to the store.

The epoch calls it once in each turn.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.runtime.clock import Clock
from albireo.store.interface import Store
from scheduler_svc.led_group import LedGroup

PLANS_A_ROUND_TRIP = 4
"""Most plans that wait for each other: a plan takes longer to make than what a round trip saves, so the first
of many would wait for the last for too long."""


class Publisher:
    """Has groups plan, and appends what they have planned."""

    def __init__(self, store: Store, clock: Clock, *, keep: int) -> None:
        """``keep``: about how many entries each log of plans keeps."""
        self._store = store
        self._clock = clock
        self._keep = keep

    def publish(self, groups: Sequence[LedGroup], now: float, began_ns: int) -> None:
        """Appends every plan of the groups that is due at ``now``, in the store's time: first one of each,
        then the next of those that had one. ``began_ns``: when the entries that led to them had been read, in
        nanoseconds of the Unix epoch. Raises Fenced once all others of a round trip have been appended."""
        while groups:
            published: list[LedGroup] = []
            for first in range(0, len(groups), PLANS_A_ROUND_TRIP):
                published += self._publish_one_of_each(
                    groups[first : first + PLANS_A_ROUND_TRIP], now, began_ns
                )
            groups, began_ns = published, self._clock.time_ns()

    def _publish_one_of_each(self, groups: Sequence[LedGroup], now: float, began_ns: int) -> list[LedGroup]:
        """Returns the groups that had a plan."""
        planned = [(group, entry) for group in groups if (entry := group.plan(now, began_ns)) is not None]
        if planned:
            self._store.append_all([entry for _, entry in planned], keep=self._keep)
            at_ns = self._clock.time_ns()
            for group, _ in planned:
                group.published(at_ns)
        return [group for group, _ in planned]
