"""The scheduler's state as the public ``Load`` message."""

from __future__ import annotations

from albireo.v1 import control_pb2 as control
from scheduler_svc.core import SchedulerCore


def load_message(core: SchedulerCore | None, epoch: int) -> control.Load:
    """The full integrity check runs only where nothing does: it costs what the whole ledger costs."""
    if core is None:
        return control.Load(epoch=epoch)
    stats = core.stats()
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
    )
    if not (stats.waiting or stats.running or stats.steps_in_flight):
        message.integrity_violations.extend(core.check_integrity())
        message.integrity_checked_step = stats.step
    return message
