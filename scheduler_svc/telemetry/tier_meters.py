"""Metrics of the KV tiers of groups, by group and tier; the scheduler's meters feed them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from albireo.telemetry import Telemetry
from albireo.telemetry import tier_metrics as metrics
from albireo.telemetry.histogram import Histogram
from albireo.v1 import control_pb2 as control
from scheduler_svc.core import TierStats

MAX_TIER_NAMES = 8
OTHER_TIERS = "other"
FETCH, STREAM = "fetch", "stream"
"""What KV is read for."""

TOTALS = {
    metrics.TIER_FETCHED: "blocks_fetched",
    metrics.TIER_SPILLED: "blocks_spilled",
    metrics.TIER_LOST: "frames_lost",
    metrics.TIER_FAILED: "fetches_failed",
    metrics.TIER_HIT_TOKENS: "prefix_hit_tokens",
}
AMOUNTS = {metrics.TIER_USED: "frames_used", metrics.TIER_TOTAL: "frames_total"}

Key = tuple[str, str]
"""Names of a group and a tier, as they are exported."""
OfGroup = tuple[str, tuple[TierStats, ...]]
"""Name of a group as it is exported, and its tiers. Several groups may have one name."""


class _View(NamedTuple):
    """What exporters read; replaced as a whole."""

    before: dict[str, dict[Key, int]]  # totals of the groups that are closed, by field
    tiers: list[tuple[Key, TierStats]]  # of the groups that serve


class TierMeters:
    """Amounts are those of the groups that serve, totals count since the process began."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._names: set[str] = set()  # of tiers
        self._read, self._spilled = Counter[tuple[str, str, str]](), Counter[Key]()  # bytes
        self._waits: dict[Key, Histogram] = {}  # by group and for what, of those that have waited
        telemetry.observe(metrics.STEP_KV_READ, lambda: dict(self._read))
        telemetry.observe(metrics.STEP_KV_SPILLED, lambda: dict(self._spilled))
        self._view = _View({field: {} for field in TOTALS.values()}, [])
        for metric, field in TOTALS.items():
            telemetry.observe(metric, self._reader(field))
        for metric, field in AMOUNTS.items():
            telemetry.observe(metric, self._reader(field))

    def update(self, groups: Iterable[OfGroup]) -> None:
        """The present state of the groups that serve."""
        self._view = self._view._replace(tiers=self._tiers(groups))

    def step(self, group: str, timing: control.StepTiming) -> None:
        """A step has settled. ``group``: its name as it is exported."""
        for transfer in timing.transfers:
            key = group, self._name(transfer.tier)
            if transfer.write:
                self._spilled[key] += transfer.bytes
            else:
                self._read[*key, STREAM if transfer.streamed else FETCH] += transfer.bytes
        self._wait(group, FETCH, timing.kv_wait - timing.stream_wait)
        self._wait(group, STREAM, timing.stream_wait)

    def _wait(self, group: str, read: str, nanoseconds: int) -> None:
        if nanoseconds > 0:
            waits = self._waits.get((group, read))
            if waits is None:
                attributes = {"albireo.group": group, "kv_read": read}
                waits = self._waits[group, read] = self._telemetry.folded(metrics.STEP_KV_WAIT, attributes)
            waits.add(nanoseconds / 1e9)

    def closed(self, last: OfGroup, others: Iterable[OfGroup]) -> None:
        """A group was closed. ``last``: its state before; ``others`` serve on."""
        before = {field: dict(totals) for field, totals in self._view.before.items()}
        for key, tier in self._tiers([last]):
            for field, totals in before.items():
                totals[key] = totals.get(key, 0) + getattr(tier, field)
        self._view = _View(before, self._tiers(others))

    def _tiers(self, groups: Iterable[OfGroup]) -> list[tuple[Key, TierStats]]:
        return [((group, self._name(tier.name)), tier) for group, tiers in groups for tier in tiers]

    def _name(self, tier: str) -> str:
        """The number of series is bounded, whatever groups call their tiers."""
        if len(self._names) < MAX_TIER_NAMES:
            self._names.add(tier)
        return tier if tier in self._names else OTHER_TIERS

    def _reader(self, field: str) -> Callable[[], dict[Key, float]]:
        def read() -> dict[Key, float]:
            view = self._view
            found: dict[Key, float] = dict(view.before.get(field, {}))
            for key, tier in view.tiers:
                found[key] = found.get(key, 0) + getattr(tier, field)
            return found

        return read
