"""The scheduler's state as the public ``Load`` message. The service makes it a few times a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from albireo.v1 import control_pb2 as control
from scheduler_svc.core import CoreStats, IntegrityCheck, SchedulerCore
from scheduler_svc.telemetry.group_report import GroupReport


class LoadReport:
    """Makes the messages of one epoch.

    Each carries what a check of the core's state has found so far. That takes time in proportion to all
    of it, so it is made while all groups are idle, one group with each message, and only groups that have
    made steps since their last check.
    """

    def __init__(self) -> None:
        self._checked_step = 0
        self._violations: list[str] = []
        self._check: IntegrityCheck | None = None

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
        self._look(core, stats)
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

    def _look(self, core: SchedulerCore, stats: CoreStats) -> None:
        if stats.waiting or stats.running or stats.steps_in_flight or stats.step == self._checked_step:
            return
        if self._check is None:
            self._check = core.begin_check()
        if self._check.advance():
            self._checked_step = stats.step
        self._violations = self._check.violations


def _group_load(group: GroupReport) -> control.GroupLoad:
    stats = group.stats
    return control.GroupLoad(
        name=group.name,
        incarnation=group.incarnation,
        device=group.device,
        tp=group.tp,
        step=stats.step,
        running=stats.running,
        streamed=stats.streamed,
        streamed_blocks=stats.streamed_blocks,
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
        tiers=[control.TierLoad(**asdict(tier)) for tier in stats.tiers],
    )
