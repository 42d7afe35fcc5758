"""What each step of a simulated group computes: a fold over the plans, counted instead of staged.

The plan log of the simulation (:mod:`.store`) applies each plan before it is published. The runner finds the
step by its entry's id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from albireo.contract.plan import BLOCK_SIZE, GroupShape
from albireo.store.interface import EntryId
from albireo.v1 import log_pb2 as log
from worker_svc.buffers.arrays import Ints
from worker_svc.cost.interface import CostModel, HostCost
from worker_svc.cost.work import SpanWork, StepWork

GREEDY, DRAWN, PENALIZED = range(3)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its counts, what it takes on the host, and the rows that sample, decoding ones first."""

    work: StepWork
    host: HostCost
    slots: Ints
    incarnations: Ints


def sampling_kind(sampling: log.Sampling) -> int:
    """Which count of :class:`StepWork` the rows of a request belong to."""
    if sampling.repetition_penalty not in (0, 1) or sampling.presence_penalty or sampling.frequency_penalty:
        return PENALIZED
    return DRAWN if sampling.temperature else GREEDY


class StepTable:
    """State by slot, as of the last plan that was applied. ``steps`` holds those that have not ended.

    In most steps the same rows decode as in the last one: the arrays of these are kept, and the number of
    computed tokens is brought up to date only where the rows change.
    """

    def __init__(self, shape: GroupShape, cost: CostModel) -> None:
        self._cost = cost
        slots, self._num_layers = shape.max_seqs, shape.num_layers
        self.steps: dict[EntryId, Step] = {}
        self._decoding = np.zeros(slots, dtype=bool)
        self._incarnations = np.zeros(slots, dtype=np.int64)
        self._computed = np.zeros(slots, dtype=np.int64)  # tokens whose keys and values exist after the steps
        self._lengths = np.zeros(
            slots, dtype=np.int64
        )  # tokens of the prompt, after a preemption outputs too
        self._kinds = np.zeros(slots, dtype=np.int64)
        self._rows = np.zeros(0, dtype=np.int64)  # slots that decode, as of the last change
        self._row_incarnations = self._rows
        self._row_kinds = (0, 0, 0)
        self._context = 0  # of these rows, in the last step
        self._steps_behind = 0  # that ``_computed`` of these rows lacks
        self._joined = False  # the last chunk of some slot ran in the last step: it decodes from now on
        self._blocks: list[list[int]] = [[] for _ in range(slots)]
        self._holders = [0] * shape.num_blocks  # by block: slots that have it in their table
        self.blocks_used = 0  # KV blocks that slots hold, shared ones once
        self.streamed_hits = Counter[int]()  # by tier: cached tokens of admissions that are streamed from it
        self.streamed_prefill = 0  # tokens of prompts that spans have computed

    def apply(self, entry_id: EntryId, plan: log.Plan) -> Step:
        """The step of a plan; the plan is that of the log, its fields are applied in their order."""
        released, paused, resumed = plan.released[:], plan.paused[:], plan.resumed[:]
        changed = bool(self._joined or released or paused or resumed or plan.offloads)
        if changed:
            self._computed[self._rows] += self._steps_behind
            self._decoding[released + paused] = False
            self._decoding[resumed] = True
            for slot in released:
                self._free(slot, len(self._blocks[slot]))
        for admission in plan.admissions:
            slot = admission.slot
            self._incarnations[slot] = admission.incarnation
            self._computed[slot] = admission.num_cached
            self._lengths[slot] = len(admission.tokens)
            self._kinds[slot] = sampling_kind(admission.sampling)
        for offload in plan.offloads:
            self._decoding[offload.slot] = False
            if not self._blocks[offload.slot]:  # it has just been admitted
                self.streamed_hits[offload.tier] += BLOCK_SIZE * len(offload.frames)
            self._free(offload.slot, len(offload.frames))
        if plan.grant_slots:
            self._grant(plan.grant_slots[:], plan.grant_counts[:], plan.grant_blocks[:])
        if changed:
            self._gather()
        self._context += len(self._rows)
        self._steps_behind += 1
        self.steps[entry_id] = step = self._step(plan.chunks, plan.spans)
        return step

    def _free(self, slot: int, count: int) -> None:
        """The first ``count`` blocks leave a slot, or as many as it has."""
        holders, blocks = self._holders, self._blocks[slot]
        for block in blocks[:count]:
            holders[block] = left = holders[block] - 1
            self.blocks_used -= not left
        del blocks[:count]

    def _grant(self, slots: list[int], counts: list[int], blocks: list[int]) -> None:
        holders, end = self._holders, 0
        for slot, count in zip(slots, counts, strict=True):
            begin, end = end, end + count
            self._blocks[slot] += blocks[begin:end]
        for block in blocks:
            self.blocks_used += not holders[block]
            holders[block] += 1

    def _gather(self) -> None:
        self._rows = np.flatnonzero(self._decoding)
        self._row_incarnations = self._incarnations[self._rows]
        self._context = int(self._computed[self._rows].sum())
        self._steps_behind = 0
        self._joined = False
        self._row_kinds = self._count_kinds(self._rows)

    def _step(self, chunks: Sequence[log.Chunk], spans: Sequence[log.Span]) -> Step:
        rows, decodes, context = self._rows, len(self._rows), self._context
        if not chunks and not spans:
            work = StepWork(decodes, context, 0, 0, *self._row_kinds)
            return Step(work, self._cost.host(work), rows, self._row_incarnations)
        joining, prefill, pairs = [], 0, 0
        for chunk in chunks:
            slot, count, end = chunk.slot, chunk.count, chunk.start + chunk.count
            prefill += count
            pairs += count * chunk.start + count * (count + 1) // 2
            self._computed[slot] = end
            if end == self._lengths[slot]:
                joining.append(slot)
        self._decoding[joining] = True
        self._joined = bool(joining)
        slots = np.concatenate([rows, np.array(joining + self._end(spans), dtype=np.int64)])
        some = tuple([SpanWork.of(range(s.first_layer, s.last_layer), s.start, s.count) for s in spans])
        kinds = self._count_kinds(slots)
        work = StepWork(decodes, context, prefill, pairs, *kinds, some, max(1, self._num_layers))
        return Step(work, self._cost.host(work), slots, self._incarnations[slots])

    def _end(self, spans: Sequence[log.Span]) -> list[int]:
        """The slots that sample, of those whose rows reach the last layer."""
        ending = [span for span in spans if span.last_layer == self._num_layers]
        for span in ending:
            self._computed[span.slot] = end = span.start + span.count
            self.streamed_prefill += max(0, min(end, int(self._lengths[span.slot])) - span.start)
        return [span.slot for span in ending if self._computed[span.slot] >= self._lengths[span.slot]]

    def _count_kinds(self, slots: Ints) -> tuple[int, int, int]:
        """Rows that are greedy, drawn and penalized."""
        greedy, drawn, penalized = np.bincount(self._kinds[slots], minlength=3).tolist()
        return greedy, drawn, penalized
