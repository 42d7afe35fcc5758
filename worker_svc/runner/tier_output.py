"""What a step has to say of the KV tiers, before it is known on the host."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from worker_svc.buffers.arrays import Ints
from worker_svc.kv_tiers.record import Recorded, TransferRecord
from worker_svc.kv_tiers.step_transfers import StepTransfers
from worker_svc.runner.tier_report import TierReport


class TierOutput:
    """The compute stage makes it, the output stage reads it."""

    def __init__(self, record: TransferRecord, step: StepTransfers | None, missing: Tensor | None) -> None:
        """``missing``: ``[ranks, slots that the step reads]``, not 0 where a rank lacks KV of a slot; None
        where the step is the first to read none."""
        self.missing = missing
        self._record = record
        self._step = step

    def report(self, missing: Ints | None) -> TierReport | None:
        """``missing``: the same on the host. Waits for copies of blocks that the step gives away."""
        step = self._step
        if step is not None:
            step.settle()
        recorded = self._record.take()
        if step is None and recorded is None:
            return None
        lost, read, transfers = recorded or Recorded()
        if step is None:
            return TierReport(lost=lost, read=read, transfers=transfers)
        slots = () if missing is None or self.missing is None else np.flatnonzero(missing.any(axis=0))
        return TierReport(
            unfetched=tuple(step.readers[slot] for slot in slots),
            lost=lost,
            read=read,
            contents=step.contents,
            contents_end=step.contents_end,
            transfers=transfers,
            kv_wait_ns=step.wait_ns,
            stream_wait_ns=0 if step.streams is None else step.streams.wait_ns,
        )
