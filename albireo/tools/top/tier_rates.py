"""Blocks per second to and from each KV tier, from the totals of the last few ``Load`` messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from albireo.tools.top.recent import WINDOW_SECONDS
from albireo.v1 import control_pb2 as control

Key = tuple[str, str]
"""Incarnation of a group, and the name of one of its tiers."""


class Blocks(NamedTuple):
    """Of one tier."""

    fetched: float
    spilled: float


class TierRates:
    """Takes loads as they are polled. ``now``: seconds of any monotonic clock. Not thread-safe."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, dict[Key, Blocks]]] = deque()  # of the last WINDOW_SECONDS

    def push(self, load: control.Load, now: float) -> None:
        totals = {
            (group.incarnation, tier.name): Blocks(tier.blocks_fetched, tier.blocks_spilled)
            for group in load.groups
            for tier in group.tiers
        }
        self._totals.append((now, totals))
        while len(self._totals) > 2 and self._totals[0][0] < now - WINDOW_SECONDS:
            self._totals.popleft()

    def rates(self) -> Mapping[Key, Blocks]:
        """Per second. A tier that was not there at the first of the loads has none yet, and so has one whose
        totals began anew, with another scheduler."""
        if not self._totals:
            return {}
        (since, first), (now, last) = self._totals[0], self._totals[-1]
        found = {}
        for key, total in last.items():
            before = first.get(key)
            if before is not None and now > since and all(b <= t for b, t in zip(before, total, strict=True)):
                found[key] = Blocks(*((t - b) / (now - since) for b, t in zip(before, total, strict=True)))
        return found
