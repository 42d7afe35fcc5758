"""The scheduler's state as the public ``Load`` message. The service makes it a few times a second."""

from __future__ import annotations

from albireo.v1 import control_pb2 as control
from scheduler_svc.core import CoreStats, SchedulerCore


class LoadReport:
    """Makes the messages of one epoch.

    Each carries the result of the last full check of the core's ledger. That takes time in proportion to the
    whole ledger, so it is made once each time that the group has become idle.
    """

    def __init__(self) -> None:
        self._checked_step = 0
        self._violations: list[str] = []

    def message(self, core: SchedulerCore | None, stats: CoreStats | None, epoch: int) -> control.Load:
        """``stats``: those of ``core``; both are None without a group."""
        if core is None or stats is None:
            return control.Load(epoch=epoch)
        idle = not (stats.waiting or stats.running or stats.steps_in_flight)
        if idle and stats.step != self._checked_step:
            self._checked_step, self._violations = stats.step, core.check_integrity()
        return control.Load(
            epoch=epoch,
            step=stats.step,
            group_alive=True,
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
        )
