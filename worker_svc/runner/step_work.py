"""What a step computes, counted from the batch that the slot table yields for its plan."""

from __future__ import annotations

import numpy as np

from worker_svc.batch.slot_table import HostBatch
from worker_svc.cost.work import SpanWork, StepWork


def step_work(batch: HostBatch, layers: int = 1) -> StepWork:
    """Exactly what the step's rows read and multiply; padding is the device's business. ``layers``: of the
    model, where slots are streamed."""
    forward, samples = batch.forward, batch.samples
    decodes, chunks = len(forward.decode_slots), len(forward.chunk_ids)
    attended = forward.positions + 1
    penalized = len(samples.penalized)
    greedy = int(np.count_nonzero(samples.temperature == 0))
    greedy -= int(np.count_nonzero(samples.temperature[samples.penalized] == 0))
    return StepWork(
        decodes=decodes,
        context=int(attended[:decodes].sum()),
        prefill=chunks,
        prefill_pairs=int(attended[decodes:].sum()),
        greedy=greedy,
        drawn=len(samples.slots) - penalized - greedy,
        penalized=penalized,
        spans=tuple(
            SpanWork.of(range(span.first_layer, span.last_layer), int(span.positions[0]), len(span.positions))
            for span in forward.spans
        ),
        layers=layers,
    )
