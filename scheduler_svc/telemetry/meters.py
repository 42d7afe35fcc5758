"""Metrics of the scheduler, its groups and their steps; updated by its thread, read by exporters' threads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, get_args

from albireo.contract.plan import DEFAULT_TENANT, StepResult
from albireo.telemetry import Telemetry, tier_metrics
from albireo.telemetry import catalogue as metrics
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import MAX_TENANTS, OTHER_TENANTS, GroupStats
from scheduler_svc.group_watch import Cause
from scheduler_svc.telemetry.group_report import GroupReport
from scheduler_svc.telemetry.step_meters import StepMeters
from scheduler_svc.telemetry.tier_meters import OfGroup, TierMeters

MAX_GROUPS = 128
OTHER_GROUPS = "other"

TOTALS = {
    metrics.PROMPT_TOKENS: "prompt_tokens",
    metrics.PREFIX_HIT_TOKENS: "prefix_hit_tokens",
    metrics.OUTPUT_TOKENS: "output_tokens",
    metrics.PREEMPTIONS: "preemptions",
    metrics.WASTED_ROWS: "wasted_rows",
    metrics.LATE_ROWS: "late_rows",
}
"""Fields of GroupStats that count since the group was opened; what is exported counts since the process
began, by the group's name."""

AMOUNTS = {
    metrics.RUNNING: "running",
    metrics.SLOTS_TOTAL: "slots_total",
    metrics.KV_CACHED: "blocks_cached",
    metrics.KV_TOTAL: "blocks_total",
    metrics.STEPS_IN_FLIGHT: "steps_in_flight",
}
STREAMED = {
    tier_metrics.STREAMED_REQUESTS: "streamed",
    tier_metrics.STREAMED_BLOCKS: "streamed_blocks",
}
"""Of groups that have KV tiers."""


class _View(NamedTuple):
    """The state that exporters read; the scheduler's thread replaces it as a whole."""

    before: dict[str, dict[str, int]]  # totals of the groups that are closed, by field and name
    groups: Sequence[GroupReport]  # that serve
    epoch: int
    waiting: int
    wait_seconds: float | None  # None: not known
    backlog: int
    depths: dict[str, int]  # by tenant


class SchedulerMeters:
    """The scheduler calls ``step`` for each settled step and ``update`` a few times a second, after the plans
    that are due. ``step`` takes about twenty microseconds.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self.wanted = telemetry.metered
        self.round_trip = telemetry.folded(metrics.REDIS_ROUND_TRIP)
        self._telemetry = telemetry
        self._tenants = {DEFAULT_TENANT}
        self._service: dict[str, float] = {DEFAULT_TENANT: 0.0}  # by tenant
        self._names: set[str] = set()  # of groups
        before: dict[str, dict[str, int]] = {field: {} for field in TOTALS.values()}
        self._view = _View(before, (), 0, 0, None, 0, self._depths({}))
        self._steps: dict[str, StepMeters] = {}  # by name of the group
        self._tiers = TierMeters(telemetry)
        # Causes that have not occurred yet are exported as 0.
        self._closings: dict[str, int] = dict.fromkeys(get_args(Cause), 0)
        self._epochs = self._failovers = self._moved = 0
        self._observe(telemetry)

    def step(self, group: str, result: StepResult, message: log.StepResult, waited: float | None) -> None:
        """``message``: the result as in the log. ``waited``: seconds that rank 0 was idle before it had the
        plan; None where it had no rows to decode."""
        name = self._name(group)
        meters = self._steps.get(name)
        if meters is None:
            meters = self._steps[name] = StepMeters(self._telemetry, name)
        meters.add(group, result, message, waited)
        self._tiers.step(name, message.timing)

    def update(self, load: control.Load, groups: Sequence[GroupReport], *, backlog: int) -> None:
        """The present state. ``backlog``: entries of the inbox that are not read yet."""
        wait = load.wait_seconds if load.wait_seconds >= 0 else None
        for group in groups:
            self._name(group.name)
        depths = self._depths(load.waiting_by_tenant)
        self._view = _View(self._view.before, groups, load.epoch, load.waiting, wait, backlog, depths)
        self._tiers.update(map(self._tiers_of, groups))

    def served(self, tenant: str, service: float) -> None:
        """A tenant was charged for so many weighted tokens more."""
        name = self._tenant_name(tenant)
        self._service[name] = self._service.get(name, 0.0) + service

    def opened(self, epoch: int) -> None:
        """An epoch was opened."""
        self._view = self._view._replace(epoch=epoch)
        self._epochs += 1
        self._failovers += epoch > 1

    def group_closed(self, group: str, cause: str, last: GroupStats) -> None:
        """A group was closed. ``last``: its state before its requests were given back."""
        name, view = self._name(group), self._view
        before = {
            field: {**totals, name: totals.get(name, 0) + getattr(last, field)}
            for field, totals in view.before.items()
        }
        groups = [report for report in view.groups if report.name != group]
        self._view = view._replace(before=before, groups=groups)
        self._tiers.closed((name, last.tiers), map(self._tiers_of, groups))
        if name in self._steps:
            self._steps[name].closed(group)
        self._closings[cause] += 1
        self._moved += last.running + last.placed

    def _observe(self, telemetry: Telemetry) -> None:
        for metric, field in TOTALS.items():
            telemetry.observe(metric, lambda field=field: self._totals(field))  # type: ignore[misc]
        for metric, field in AMOUNTS.items():
            telemetry.observe(metric, lambda field=field: self._amounts(field))  # type: ignore[misc]
        for metric, field in STREAMED.items():
            telemetry.observe(metric, lambda field=field: self._amounts(field, tiered=True))  # type: ignore[misc]
        for metric, what in ((metrics.SLOTS_USED, "slots"), (metrics.KV_USED, "blocks")):
            telemetry.observe(metric, lambda what=what: self._used(what))  # type: ignore[misc]
        by_group, steps = self._by_group, self._by_steps
        telemetry.observe(metrics.LOOK_AHEAD, lambda: by_group(lambda group: group.look_ahead))
        telemetry.observe(metrics.HEARTBEAT_AGE, lambda: by_group(lambda group: group.beat_age))
        telemetry.observe(metrics.STEP_SECONDS, lambda: by_group(lambda group: group.stats.step_seconds))
        telemetry.observe(metrics.STEPS, lambda: steps(lambda meters: meters.steps))
        telemetry.observe(metrics.STEP_PREFILL, lambda: steps(lambda meters: meters.prefill_tokens))
        telemetry.observe(metrics.QUEUE_DEPTH, lambda: self._view.depths)
        telemetry.observe(metrics.SERVICE, lambda: dict(self._service))
        telemetry.observe(metrics.WAITING, lambda: self._view.waiting)
        telemetry.observe(metrics.PREDICTED_WAIT, lambda: self._view.wait_seconds)
        telemetry.observe(metrics.GROUPS, lambda: len(self._view.groups))
        telemetry.observe(metrics.GROUP_CLOSINGS, lambda: dict(self._closings))
        telemetry.observe(metrics.MOVED_REQUESTS, lambda: self._moved)
        telemetry.observe(metrics.EPOCHS, lambda: self._epochs)
        telemetry.observe(metrics.FAILOVERS, lambda: self._failovers)
        telemetry.observe(metrics.EPOCH, lambda: self._view.epoch)
        telemetry.observe(metrics.INBOX_BACKLOG, lambda: self._view.backlog)

    def _name(self, group: str) -> str:
        """The name under which a group is exported: at most MAX_GROUPS, so that the number of series is
        bounded."""
        if group in self._names:
            return group
        if len(self._names) >= MAX_GROUPS:
            return OTHER_GROUPS
        self._names.add(group)
        return group

    def _tiers_of(self, group: GroupReport) -> OfGroup:
        return self._name(group.name), group.stats.tiers

    def _by_group(self, read: Callable[[GroupReport], float], *, tiered: bool = False) -> dict[str, float]:
        """``tiered``: only of groups that have KV tiers."""
        found: defaultdict[str, float] = defaultdict(float)
        for report in self._view.groups:
            if report.stats.tiers or not tiered:
                found[self._name(report.name)] += read(report)
        return found

    def _amounts(self, field: str, *, tiered: bool = False) -> dict[str, float]:
        return self._by_group(lambda group: getattr(group.stats, field), tiered=tiered)

    def _used(self, what: str) -> dict[str, float]:
        total, free = f"{what}_total", f"{what}_free"
        return self._by_group(lambda group: getattr(group.stats, total) - getattr(group.stats, free))

    def _totals(self, field: str) -> dict[str, float]:
        found: dict[str, float] = dict(self._view.before[field])
        for name, value in self._amounts(field).items():
            found[name] = found.get(name, 0) + value
        return found

    def _by_steps(self, read: Callable[[StepMeters], float]) -> dict[str, float]:
        return {name: read(meters) for name, meters in list(self._steps.items())}

    def _depths(self, waiting: Mapping[str, int]) -> dict[str, int]:
        """Waiting requests by tenant, 0 for tenants that were exported before. At most MAX_TENANTS names, so
        that the number of series is bounded."""
        named = [(self._tenant_name(tenant), count) for tenant, count in waiting.items()]
        depths = dict.fromkeys(self._tenants, 0)
        for name, count in named:
            depths[name] = depths.get(name, 0) + count
        return depths

    def _tenant_name(self, tenant: str) -> str:
        if len(self._tenants) < MAX_TENANTS:
            self._tenants.add(tenant)
        return tenant if tenant in self._tenants else OTHER_TENANTS
