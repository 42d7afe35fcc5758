"""The scheduler's state as the public ``Load`` message; made by the scheduler's thread."""

from __future__ import annotations

from albireo.v1 import control_pb2 as control
from scheduler_svc.core import CoreStats, SchedulerCore


class IntegrityCheck:
    """The last full check of a core's ledger. Its time grows with the ledger, so it runs once each time that
    the group has become idle."""

    def __init__(self) -> None:
        self.step = 0
        self.violations: list[str] = []

    def run(self, core: SchedulerCore, step: int) -> None:
        """``core`` is idle after ``step``."""
        if step != self.step:
            self.step, self.violations = step, core.check_integrity()


def load_message(
    core: SchedulerCore | None, stats: CoreStats | None, epoch: int, integrity: IntegrityCheck
) -> control.Load:
    """``stats``: those of ``core``; both are None without a group."""
    if core is None or stats is None:
        return control.Load(epoch=epoch)
    message = control.Load(
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
    )
    if not (stats.waiting or stats.running or stats.steps_in_flight):
        integrity.run(core, stats.step)
    message.integrity_violations.extend(integrity.violations)
    message.integrity_checked_step = integrity.step
    return message
