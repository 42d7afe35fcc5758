"""The slot table as a rank holds it on the host: applies plans, yields the arrays of each step.

The input stage calls it, ahead of the device: the ids of sampled tokens are not known here, nor needed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from albireo.contract.plan import BLOCK_SIZE, Admission, Chunk, GroupShape, Plan, blocks_for, table_digest
from albireo.contract.tiers import Offload, Span
from worker_svc.batch.block_tables import grouped, ragged, ragged_chunks
from worker_svc.batch.inputs import ChunkRows, ForwardInput, SpanInput
from worker_svc.batch.row_check import fault_of, stand_in
from worker_svc.batch.streamed_slots import StreamedSlots
from worker_svc.buffers.arrays import NO_IDS, HostArray, Ints
from worker_svc.kv_tiers.streamed_frames import SpanFrames
from worker_svc.sampling.controls import SlotControls
from worker_svc.sampling.rows import PenaltyStart, PromptRows, SampleRows

logger = logging.getLogger(__name__)


class TableMismatch(RuntimeError):
    """This rank's table is not the scheduler's: it must not run another step."""


@dataclass(frozen=True, slots=True)
class HostBatch:
    """One step as the slot table yields it."""

    forward: ForwardInput[HostArray]
    fresh: Ints  # blocks granted for this step whose KV neither exists nor is fetched
    samples: SampleRows
    penalty_starts: tuple[PenaltyStart, ...]  # requests with penalties that take a slot
    prompts: tuple[PromptRows, ...]
    spans: tuple[SpanFrames, ...] = ()  # what those of ``forward`` read from tiers


class SlotTable:
    """State by slot. One thread applies plans, in the order of the log."""

    def __init__(
        self,
        shape: GroupShape,
        vocab_size: int,
        eos_ids: frozenset[int] = frozenset(),
        owners: int = 1,
        *,
        ragged_tables: bool = False,
    ) -> None:
        """The cache must have one block beyond ``shape.num_blocks``: it pads block tables.

        ``vocab_size``: rows of the embedding; a request with an id beyond them fails. ``owners``: ranks that
        share the sampling; the rows that sample come owner by owner, ``slot mod owners``. ``ragged_tables``:
        block tables of a step are ragged.
        """
        slots = shape.max_seqs
        self._owners = owners
        self._vocab_size = vocab_size
        self._scratch = shape.num_blocks
        self._occupied = np.zeros(slots, dtype=bool)
        self._decoding = np.zeros(slots, dtype=bool)
        self._incarnations = np.zeros(slots, dtype=np.int64)
        self._computed = np.zeros(slots, dtype=np.int64)  # tokens whose KV exists once all applied steps ran
        self._outputs = np.zeros(slots, dtype=np.int64)  # tokens sampled once all applied steps ran
        self._blocks = np.full((slots, blocks_for(shape.max_model_len)), self._scratch, dtype=np.int64)
        self._num_blocks = np.zeros(slots, dtype=np.int64)
        self._tokens: list[Ints] = [np.zeros(0, dtype=np.int64)] * slots
        self._controls = SlotControls(slots, eos_ids)
        self._prompt_logprobs: dict[int, tuple[int, int]] = {}  # by slot: length of the prompt, how many
        self._streamed = StreamedSlots(shape.num_layers)
        self._ragged = ragged_tables

    def reset(self) -> None:
        """Forgets everything: a new epoch begins."""
        self._occupied[:] = False
        self._decoding[:] = False
        self._streamed.reset()

    @property
    def incarnations(self) -> Ints:
        """By slot. Of those that are free, the last."""
        return self._incarnations

    def apply(self, plan: Plan) -> HostBatch:
        """Applies one plan and advances the table as if its step had run.

        Raises TableMismatch when the plan's checks fail.
        """
        released = list(plan.released)
        self._occupied[released] = False
        self._decoding[released] = False
        self._streamed.release(released)
        self._decoding[list(plan.paused)] = False
        self._decoding[list(plan.resumed)] = True
        starts = [start for admission in plan.admissions if (start := self._admit(admission)) is not None]
        for offload in plan.offloads:
            self._offload(offload)
        fresh: list[int] = []
        for grant in plan.grants:
            if not all(0 <= block < self._scratch for block in grant.blocks):
                raise TableMismatch(
                    f"step {plan.step}: slot {grant.slot} is granted blocks that there are not"
                )
            count = int(self._num_blocks[grant.slot])
            cached = int(self._computed[grant.slot]) // BLOCK_SIZE - self._streamed.blocks(grant.slot)
            fresh += grant.blocks[max(0, cached - count) :]
            self._blocks[grant.slot, count : count + len(grant.blocks)] = grant.blocks
            self._num_blocks[grant.slot] = count + len(grant.blocks)
        slots = np.flatnonzero(self._decoding)
        if len(slots) != plan.num_decodes:
            raise TableMismatch(
                f"step {plan.step}: {len(slots)} rows decode, the plan says {plan.num_decodes}"
            )
        batch = self._build(slots, plan, np.array(fresh, dtype=np.int64), tuple(starts))
        if plan.digest is not None and self.digest() != plan.digest:
            raise TableMismatch(f"step {plan.step}: the digest of the table differs")
        return batch

    def digest(self) -> int:
        """See :func:`albireo.contract.plan.table_digest`."""
        return table_digest(
            (
                int(slot),
                int(self._incarnations[slot]),
                int(self._computed[slot]),
                count := int(self._num_blocks[slot]),
                int(self._blocks[slot, count - 1]) if count else -1,
            )
            for slot in np.flatnonzero(self._occupied)
        )

    def _admit(self, admission: Admission) -> PenaltyStart | None:
        if fault := fault_of(admission, self._vocab_size):
            logger.error("request %s cannot be run and ends with an error: %s", admission.request_id, fault)
            admission = stand_in(admission, self._vocab_size)
        slot, sampling = admission.slot, admission.sampling
        if self._occupied[slot]:
            raise TableMismatch(f"slot {slot} is admitted twice")
        self._occupied[slot] = True
        self._incarnations[slot] = admission.incarnation
        self._computed[slot] = admission.num_cached
        self._outputs[slot] = admission.num_outputs
        self._blocks[slot] = self._scratch
        self._num_blocks[slot] = 0
        self._tokens[slot] = np.array(admission.tokens, dtype=np.int64)
        self._prompt_logprobs.pop(slot, None)
        # A request that has outputs was preempted after its prompt's log-probabilities were in the log.
        if sampling.prompt_logprobs >= 0 and not admission.num_outputs:
            self._prompt_logprobs[slot] = len(admission.tokens), sampling.prompt_logprobs
        return self._controls.admit(admission)

    def _offload(self, offload: Offload) -> None:
        """The first blocks leave the table, if it has any: a slot that was just admitted has none."""
        slot, count = offload.slot, len(offload.frames)
        held = int(self._num_blocks[slot])
        if held and held < count:
            raise TableMismatch(f"slot {slot}: {count} blocks are offloaded, it has {held}")
        self._streamed.offload(offload)
        if self._streamed.blocks(slot) * BLOCK_SIZE > self._computed[slot]:
            raise TableMismatch(f"slot {slot}: of {self._computed[slot]} tokens more blocks are offloaded")
        self._decoding[slot] = False
        if held:
            self._blocks[slot, : held - count] = self._blocks[slot, count:held]
            self._blocks[slot, held - count : held] = self._scratch
            self._num_blocks[slot] = held - count

    def _build(self, slots: Ints, plan: Plan, fresh: Ints, starts: tuple[PenaltyStart, ...]) -> HostBatch:
        by_kind = ragged if self._ragged else grouped
        slots, decodes = by_kind(self._blocks, slots, self._computed[slots] // BLOCK_SIZE + 1)
        positions = self._computed[slots]
        all_positions, all_kv_rows = [positions], [self._kv_rows(slots, positions)]
        self._computed[slots] += 1
        first = len(slots)
        chunks, prompts, ids, sampling_rows, joining = [], [], [], [np.arange(first)], []
        for chunk in plan.chunks:
            end, tokens = chunk.start + chunk.count, self._tokens[chunk.slot]
            chunks.append(self._chunk(chunk, first))
            own = np.arange(chunk.start, end)
            all_positions.append(own)
            all_kv_rows.append(self._kv_rows(chunk.slot, own))
            ids.append(tokens[chunk.start : end])
            if chunk.slot in self._prompt_logprobs:
                prompts.append(self._prompt_rows(chunk, first))
            first += chunk.count
            if chunks[-1].ends:
                sampling_rows.append(np.array([first - 1]))
                joining.append(chunk.slot)
        self._decoding[joining] = True
        kept, tables = ragged_chunks(chunks) if self._ragged else (tuple(chunks), None)
        spans = tuple(map(self._span, plan.spans))
        for span in self._ending(plan):
            if span.slot in self._prompt_logprobs:
                prompts.append(self._prompt_rows(span, first))
            first += span.count
            if self._computed[span.slot] >= len(self._tokens[span.slot]):
                sampling_rows.append(np.array([first - 1]))
                joining.append(span.slot)
        return HostBatch(
            forward=ForwardInput(
                decode_slots=slots,
                positions=np.concatenate(all_positions),
                kv_rows=np.concatenate(all_kv_rows),
                decodes=decodes,
                chunk_ids=np.concatenate(ids) if ids else NO_IDS,
                chunks=kept,
                spans=spans,
                chunk_tables=tables,
            ),
            fresh=fresh,
            samples=self._samples(
                np.concatenate(sampling_rows), np.concatenate([slots, np.array(joining, dtype=np.int64)])
            ),
            penalty_starts=starts,
            prompts=tuple(prompt for prompt in prompts if len(prompt.targets)),
            spans=tuple(map(self._span_frames, plan.spans)),
        )

    def _prompt_rows(self, chunk: Chunk | Span, first: int) -> PromptRows:
        length, most = self._prompt_logprobs[chunk.slot]
        targets = self._tokens[chunk.slot][chunk.start + 1 : min(chunk.start + chunk.count + 1, length)]
        return PromptRows(
            incarnation=int(self._incarnations[chunk.slot]),
            start=chunk.start + 1,
            rows=np.arange(first, first + len(targets)),
            targets=targets,
            most=most,
        )

    def _chunk(self, chunk: Chunk, first: int) -> ChunkRows[HostArray]:
        if chunk.slot in self._streamed:
            raise TableMismatch(f"slot {chunk.slot}: a chunk, but it is streamed")
        if chunk.start != self._computed[chunk.slot]:
            raise TableMismatch(
                f"slot {chunk.slot}: a chunk at {chunk.start}, {self._computed[chunk.slot]} computed"
            )
        end = chunk.start + chunk.count
        self._computed[chunk.slot] = end
        blocks = self._blocks[chunk.slot, : blocks_for(end)].copy()
        ends = end == len(self._tokens[chunk.slot])
        return ChunkRows(first, chunk.start, chunk.count, ends, blocks)

    def _span(self, span: Span) -> SpanInput[HostArray]:
        slot, known = span.slot, self._tokens[span.slot]
        computed, end = int(self._computed[slot]), span.start + span.count
        if fault := self._streamed.fault_of(span, computed, len(known)):
            raise TableMismatch(f"slot {slot}: {span} cannot run: {fault}")
        skipped = self._streamed.blocks(slot)
        blocks = blocks_for(end) - skipped
        if blocks > self._num_blocks[slot]:
            raise TableMismatch(f"slot {slot}: {span} needs {blocks} blocks, it has {self._num_blocks[slot]}")
        positions = np.arange(span.start, end)
        return SpanInput(
            slot=slot,
            states=self._streamed[slot].states,
            first_layer=span.first_layer,
            last_layer=span.last_layer,
            before=span.start - skipped * BLOCK_SIZE,
            ids=known[span.start : end] if span.first_layer == 0 and end <= len(known) else None,
            positions=positions,
            kv_rows=self._kv_rows(slot, positions - skipped * BLOCK_SIZE),
            blocks=self._blocks[slot, :blocks].copy(),
        )

    def _ending(self, plan: Plan) -> list[Span]:
        """Takes the spans as run; returns those whose rows have all their layers."""
        if len({span.slot for span in plan.spans}) < len(plan.spans):
            raise TableMismatch(f"step {plan.step}: two spans of one slot")
        ending = [span for span in plan.spans if self._streamed.advance(span)]
        for span in ending:
            self._computed[span.slot] = span.start + span.count
        return ending

    def _span_frames(self, span: Span) -> SpanFrames:
        return SpanFrames(
            int(self._incarnations[span.slot]),
            range(span.first_layer, span.last_layer),
            self._streamed[span.slot].frames.pieces,
        )

    def _kv_rows(self, slots: Ints | int, positions: Ints) -> Ints:
        rows: Ints = self._blocks[slots, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
        return rows

    def _samples(self, rows: Ints, slots: Ints) -> SampleRows:
        if self._owners > 1:
            order = np.argsort(slots % self._owners, kind="stable")
            rows, slots = rows[order], slots[order]
        positions = self._outputs[slots]
        self._outputs[slots] += 1
        return self._controls.rows(rows, slots, self._incarnations[slots], positions)
