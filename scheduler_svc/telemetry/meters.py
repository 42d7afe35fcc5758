"""Metrics of the scheduler and of the steps; updated by its thread, read by the exporters' threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from albireo.contract.plan import DEFAULT_TENANT, StepResult
from albireo.telemetry import Telemetry
from albireo.telemetry import catalogue as metrics
from albireo.telemetry.step_times import StepWindow
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import MAX_TENANTS, OTHER_TENANTS, CoreStats

TOTALS = {
    metrics.PROMPT_TOKENS: "prompt_tokens",
    metrics.PREFIX_HIT_TOKENS: "prefix_hit_tokens",
    metrics.OUTPUT_TOKENS: "output_tokens",
    metrics.PREEMPTIONS: "preemptions",
    metrics.WASTED_ROWS: "wasted_rows",
    metrics.LATE_ROWS: "late_rows",
}
"""Fields of CoreStats that count since the epoch opened; what is exported counts since the process began."""

AMOUNTS = {
    metrics.WAITING: "waiting",
    metrics.RUNNING: "running",
    metrics.SLOTS_TOTAL: "slots_total",
    metrics.KV_CACHED: "blocks_cached",
    metrics.KV_TOTAL: "blocks_total",
    metrics.STEPS_IN_FLIGHT: "steps_in_flight",
}
TASKS = ("t1", "t2", "t3", "t4", "t5")
VISIBLE_TASKS = ("t1", "t2", "t5")


class _View(NamedTuple):
    """The state that exporters read; the scheduler's thread replaces it as a whole."""

    before: dict[str, int]  # totals of the epochs that are over
    stats: CoreStats | None  # of this one; None without a group
    epoch: int
    look_ahead: int
    backlog: int
    depths: dict[str, int]  # by tenant


class SchedulerMeters:
    """The scheduler calls ``step`` for each settled step and ``update`` a few times a second, after the plans
    that are due. ``step`` takes about twenty microseconds.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self.wanted = telemetry.metered
        self.round_trip = telemetry.folded(metrics.REDIS_ROUND_TRIP)
        self._tenants = {DEFAULT_TENANT}
        self._view = _View(dict.fromkeys(TOTALS.values(), 0), None, 0, 0, 0, self._depths({}))
        self._steps = self._prefill_tokens = 0
        self._times = StepWindow()
        self._tasks = [(name, telemetry.folded(metrics.STEP_TASK, {"task": name})) for name in TASKS]
        self._tasks += [
            (f"visible_{name}", telemetry.folded(metrics.STEP_TASK_VISIBLE, {"task": name}))
            for name in VISIBLE_TASKS
        ]
        self._tasks += [
            ("visible", telemetry.folded(metrics.STEP_VISIBLE)),
            ("period", telemetry.folded(metrics.STEP_PERIOD)),
            ("plan_age", telemetry.folded(metrics.STEP_PLAN_AGE)),
        ]
        self._plan_wait = telemetry.folded(metrics.STEP_PLAN_WAIT)
        self._rows = telemetry.folded(metrics.STEP_ROWS)
        # Reasons that have not occurred yet are exported as 0.
        self._epochs = dict.fromkeys(("start", "group_lost", "group_joined"), 0)
        self._failovers = dict.fromkeys(("scheduler", "group"), 0)
        self._observe(telemetry)

    def step(self, result: StepResult, message: log.StepResult, waited: float | None) -> None:
        """``message``: the result as in the log. ``waited``: seconds that rank 0 was idle before it had the
        plan; None where it had no rows to decode."""
        self._steps += 1
        self._prefill_tokens += message.prefill_tokens
        self._rows.add(message.decodes)
        if waited is not None:
            self._plan_wait.add(max(0.0, waited))
        record = control.StepRecord(
            epoch=result.epoch,
            step=result.step,
            timing=message.timing,
            decodes=message.decodes,
            prefill_tokens=message.prefill_tokens,
        )
        times = self._times.push(record)
        if times is not None:
            for name, histogram in self._tasks:
                histogram.add(getattr(times, name))

    def update(self, stats: CoreStats | None, *, epoch: int, look_ahead: int, backlog: int) -> None:
        """The present state. ``backlog``: entries of the inbox that are not read yet."""
        depths = self._depths(stats.waiting_by_tenant if stats else {})
        self._view = _View(self._view.before, stats, epoch, look_ahead, backlog, depths)

    def opened(self, epoch: int, reason: str, *, failover: str, last: CoreStats | None) -> None:
        """An epoch was opened. ``last``: the last state of the epoch before, if that was this process's;
        ``failover``: ``scheduler`` or ``group``, whichever replaced another one, else empty."""
        before = self._view.before
        if last is not None:
            before = {name: total + getattr(last, name) for name, total in before.items()}
        self._view = _View(before, None, epoch, 0, 0, self._depths({}))
        self._epochs[reason] += 1
        if failover:
            self._failovers[failover] += 1

    def _observe(self, telemetry: Telemetry) -> None:
        for metric, name in TOTALS.items():
            telemetry.observe(metric, lambda name=name: self._total(name))  # type: ignore[misc]
        for metric, name in AMOUNTS.items():
            telemetry.observe(metric, lambda name=name: getattr(self._view.stats, name, 0))  # type: ignore[misc]
        telemetry.observe(metrics.SLOTS_USED, lambda: self._used("slots"))
        telemetry.observe(metrics.KV_USED, lambda: self._used("blocks"))
        telemetry.observe(metrics.QUEUE_DEPTH, lambda: self._view.depths)
        telemetry.observe(metrics.STEPS, lambda: self._steps)
        telemetry.observe(metrics.STEP_PREFILL, lambda: self._prefill_tokens)
        telemetry.observe(metrics.EPOCHS, lambda: self._epochs)
        telemetry.observe(metrics.FAILOVERS, lambda: self._failovers)
        telemetry.observe(metrics.EPOCH, lambda: self._view.epoch)
        telemetry.observe(metrics.LOOK_AHEAD, lambda: self._view.look_ahead)
        telemetry.observe(metrics.INBOX_BACKLOG, lambda: self._view.backlog)

    def _total(self, name: str) -> int:
        view = self._view
        total: int = view.before[name] + getattr(view.stats, name, 0)
        return total

    def _used(self, what: str) -> int:
        stats = self._view.stats
        used: int = getattr(stats, f"{what}_total", 0) - getattr(stats, f"{what}_free", 0)
        return used

    def _depths(self, waiting: Mapping[str, int]) -> dict[str, int]:
        """Waiting requests by tenant, 0 for tenants that were exported before. At most MAX_TENANTS names, so
        that the number of series is bounded."""
        for tenant in waiting:
            if len(self._tenants) < MAX_TENANTS:
                self._tenants.add(tenant)
        depths = dict.fromkeys(self._tenants, 0)
        for tenant, count in waiting.items():
            name = tenant if tenant in self._tenants else OTHER_TENANTS
            depths[name] = depths.get(name, 0) + count
        return depths
