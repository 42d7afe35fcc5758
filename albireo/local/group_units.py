"""The worker groups of a stack: their names, their places among the ranks of the machine, and which are lost.

The stack asks it; it starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOST_SECONDS = 10.0
"""A group that was registered and is not for so long is started again, though its processes have not ended:
they may be stopped. One that the scheduler has closed ends by itself, sooner."""


class GroupPlaces:
    """Ranks of this machine, numbered over all groups: the number decides on GPU and port of the metrics."""

    def __init__(self) -> None:
        self._places: dict[str, range] = {}
        self._named = 0

    def take(self, tp: int) -> tuple[str, int]:
        """A name that no group has had, and the number of its rank 0: the lowest with ``tp`` free ones."""
        name = f"g{self._named}"
        self._named += 1
        first = 0
        for place in sorted(self._places.values(), key=lambda place: place.start):
            if first + tp <= place.start:
                break
            first = place.stop
        self._places[name] = range(first, first + tp)
        return name, first

    def free(self, name: str) -> None:
        del self._places[name]

    @property
    def ranks(self) -> int:
        """Of all groups."""
        return sum(map(len, self._places.values()))

    @property
    def names(self) -> list[str]:
        return list(self._places)


@dataclass(slots=True)
class Seen:
    """A group's life, as it was registered."""

    name: str
    first: float
    last: float = 0.0


class LostGroups:
    """Finds units whose group was registered, and is not any more. Seconds are monotonic."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}  # by incarnation

    def look(self, registered: Mapping[str, str], started: Mapping[str, float], now: float) -> list[str]:
        """Names of the lost ones. ``registered``: names by incarnation; ``started``: when each unit did, by
        name. An incarnation that was seen before is one of an earlier start."""
        for incarnation, name in registered.items():
            self._seen.setdefault(incarnation, Seen(name, now)).last = now
        gone = {key: seen for key, seen in self._seen.items() if now - seen.last > LOST_SECONDS}
        for key in gone:
            del self._seen[key]
        return [seen.name for seen in gone.values() if seen.first > started.get(seen.name, now)]

    def pause(self, seconds: float) -> None:
        """Nothing was known for so long."""
        for seen in self._seen.values():
            seen.last += seconds
