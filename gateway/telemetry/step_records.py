"""A step's result as the record that ``Control.WatchSteps`` sends."""

from __future__ import annotations

import time

from albireo.store.logs import EntryId
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log


def step_record(
    entry_id: EntryId, result: log.StepResult, received: int, *, simulated: bool
) -> control.StepRecord:
    """Called after the result's rows have been routed. ``received``: when the entry arrived, in nanoseconds
    since the Unix epoch."""
    return control.StepRecord(
        epoch=entry_id.epoch,
        step=entry_id.step,
        timing=result.timing,
        decodes=result.decodes,
        prefill_tokens=result.prefill_tokens,
        tokens=len(result.ids),
        wasted_rows=result.wasted_rows,
        simulated=simulated,
        received=received,
        handed_out=time.time_ns(),
    )
