"""A step's result as the record that ``Control.WatchSteps`` sends."""

from __future__ import annotations

from albireo.store.interface import EntryId
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log


def step_record(
    group: str, entry_id: EntryId, result: log.StepResult, *, received: int, handed_out: int, simulated: bool
) -> control.StepRecord:
    """``group``: its name. ``received``: when the entry arrived; ``handed_out``: when its rows had been
    routed. Both by this host, in nanoseconds since the Unix epoch."""
    return control.StepRecord(
        group=group,
        epoch=entry_id.epoch,
        step=entry_id.step,
        timing=result.timing,
        decodes=result.decodes,
        prefill_tokens=result.prefill_tokens,
        tokens=len(result.finishes),
        wasted_rows=result.wasted_rows,
        simulated=simulated,
        received=received,
        handed_out=handed_out,
    )
