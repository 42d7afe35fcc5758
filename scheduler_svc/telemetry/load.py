"""The scheduler's state as the public ``Load`` message. The service makes it a few times a second."""

from __future__ import annotations

from collections.abc import Sequence

from albireo.v1 import control_pb2 as control
from scheduler_svc.core import CoreStats, IntegrityCheck, SchedulerCore
from scheduler_svc.telemetry.group_report import GroupReport


class LoadReport:
    """Makes the messages of one epoch.

    Each carries the result of the last full check of the core's state. That takes time in proportion to all
    of it, so it is made once each time that all groups have become idle, one group with each message, and
    begun anew where they have run in between.
    """

    def __init__(self) -> None:
        self._checked_step = 0
        self._violations: list[str] = []
        self._checking: tuple[int, IntegrityCheck] | None = None  # at which step, in all

    def message(
        self,
        epoch: int,
        core: SchedulerCore,
        stats: CoreStats,
        groups: Sequence[GroupReport],
        *,
        wait_seconds: float,
    ) -> control.Load:
        """``stats``: those of ``core``. ``groups``: those that serve. ``wait_seconds``: see
        :class:`scheduler_svc.wait_forecast.WaitForecast`."""
        self._check(core, stats)
        return control.Load(
            epoch=epoch,
            step=stats.step,
            group_alive=bool(groups),
            waiting=stats.waiting,
            running=stats.running,
            steps_in_flight=stats.steps_in_flight,
            slots_total=stats.slots_total,
            slots_free=stats.slots_free,
            blocks_total=stats.blocks_total,
            blocks_free=stats.blocks_free,
            blocks_cached=stats.blocks_cached,
            preemptions=stats.preemptions,
            prefix_hit_tokens=stats.prefix_hit_tokens,
            prompt_tokens=stats.prompt_tokens,
            wasted_rows=stats.wasted_rows,
            waiting_by_tenant=stats.waiting_by_tenant,
            integrity_violations=self._violations,
            integrity_checked_step=self._checked_step,
            groups=map(_group_load, groups),
            wait_seconds=wait_seconds,
        )

    def _check(self, core: SchedulerCore, stats: CoreStats) -> None:
        idle = not (stats.waiting or stats.running or stats.steps_in_flight)
        if not idle or stats.step == self._checked_step:
            self._checking = None
            return
        step, check = self._checking or (0, None)
        if check is None or step != stats.step:
            check = core.begin_check()
            self._checking = stats.step, check
        if check.advance():
            self._checked_step, self._violations = stats.step, check.violations


def _group_load(group: GroupReport) -> control.GroupLoad:
    stats = group.stats
    return control.GroupLoad(
        name=group.name,
        incarnation=group.incarnation,
        device=group.device,
        tp=group.tp,
        step=stats.step,
        running=stats.running,
        slots_total=stats.slots_total,
        slots_free=stats.slots_free,
        blocks_total=stats.blocks_total,
        blocks_free=stats.blocks_free,
        blocks_cached=stats.blocks_cached,
        prompt_tokens=stats.prompt_tokens,
        prefix_hit_tokens=stats.prefix_hit_tokens,
        output_tokens=stats.output_tokens,
        step_seconds=stats.step_seconds,
        ranks=group.ranks,
    )
