"""The slot table as a rank holds it on the host: applies plans, yields the arrays of each step.

It runs ahead of the device: it never knows the ids of sampled tokens, and never needs them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from albireo.plan import (
    BLOCK_SIZE,
    Admission,
    Chunk,
    GroupShape,
    Plan,
    SamplingParams,
    blocks_for,
    table_digest,
)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class TableMismatch(RuntimeError):
    """This rank's table is not the scheduler's: it must not run another step."""


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """Decoding rows of similar context length, from row ``first`` of the step."""

    first: int
    contexts: Ints  # [rows], this step's token included
    blocks: Ints  # [rows, blocks of the longest], padded with the scratch block


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """The rows of one prefill chunk, from row ``first`` of the step."""

    first: int
    count: int
    start: int  # position of the first row
    blocks: Ints  # [blocks of the context]


@dataclass(frozen=True, slots=True)
class SampleRows:
    """The rows that sample, one entry each in every array."""

    rows: Ints  # among the rows of the step
    slots: Ints
    incarnations: Ints
    positions: Ints  # index of the token to draw among the request's outputs
    seeds: npt.NDArray[np.uint64]
    temperature: Floats
    top_k: Ints
    top_p: Floats
    min_p: Floats
    logprobs: Ints
    masked_rows: Ints  # pairs (entry here, id) that must not be drawn: end tokens below min_tokens
    masked_ids: Ints


@dataclass(frozen=True, slots=True)
class HostBatch:
    """One step: decoding rows first, in groups, then the rows of chunks in the plan's order."""

    decode_slots: Ints  # [d], where the decoding rows find their token
    chunk_ids: Ints  # [n - d], tokens of the chunks' rows
    positions: Ints  # [n]
    kv_rows: Ints  # [n], block * 16 + offset of each row's own key and value
    decodes: tuple[DecodeRows, ...]
    chunks: tuple[ChunkRows, ...]
    fresh: Ints  # blocks granted for this step that hold none of their request's KV yet
    samples: SampleRows


class SlotTable:
    """State by slot. One thread applies plans, in the order of the log."""

    def __init__(self, shape: GroupShape, eos_ids: frozenset[int]) -> None:
        """The cache must have one block beyond ``shape.num_blocks``: it pads block tables."""
        slots = shape.max_seqs
        self._eos_ids = eos_ids
        self._scratch = shape.num_blocks
        self._occupied = np.zeros(slots, dtype=bool)
        self._decoding = np.zeros(slots, dtype=bool)
        self._incarnations = np.zeros(slots, dtype=np.int64)
        self._computed = np.zeros(slots, dtype=np.int64)  # tokens whose KV exists once all applied steps ran
        self._outputs = np.zeros(slots, dtype=np.int64)  # tokens sampled once all applied steps ran
        self._blocks = np.full((slots, blocks_for(shape.max_model_len)), self._scratch, dtype=np.int64)
        self._num_blocks = np.zeros(slots, dtype=np.int64)
        self._tokens: list[Ints] = [np.zeros(0, dtype=np.int64)] * slots
        self._sampling = [SamplingParams(max_tokens=1, seed=0)] * slots
        self._seeds = np.zeros(slots, dtype=np.uint64)
        self._floats = np.zeros((3, slots))  # temperature, top_p, min_p
        self._ints = np.zeros((3, slots), dtype=np.int64)  # top_k, logprobs, min_tokens

    def reset(self) -> None:
        """Forgets everything: a new epoch begins."""
        self._occupied[:] = False
        self._decoding[:] = False

    def apply(self, plan: Plan) -> HostBatch:
        """Applies one plan and advances the table as if its step had run.

        Raises TableMismatch when the plan's checks fail.
        """
        released = list(plan.released)
        self._occupied[released] = False
        self._decoding[released] = False
        self._decoding[list(plan.paused)] = False
        self._decoding[list(plan.resumed)] = True
        for admission in plan.admissions:
            self._admit(admission)
        fresh: list[int] = []
        for grant in plan.grants:
            count = int(self._num_blocks[grant.slot])
            cached = int(self._computed[grant.slot]) // BLOCK_SIZE
            fresh += grant.blocks[max(0, cached - count) :]
            self._blocks[grant.slot, count : count + len(grant.blocks)] = grant.blocks
            self._num_blocks[grant.slot] = count + len(grant.blocks)
        slots = np.flatnonzero(self._decoding)
        if len(slots) != plan.num_decodes:
            raise TableMismatch(
                f"step {plan.step}: {len(slots)} rows decode, the plan says {plan.num_decodes}"
            )
        batch = self._build(slots, plan, np.array(fresh, dtype=np.int64))
        if plan.digest is not None and self.digest() != plan.digest:
            raise TableMismatch(f"step {plan.step}: the digest of the table differs")
        return batch

    def digest(self) -> int:
        """See :func:`albireo.plan.table_digest`."""
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

    def _admit(self, admission: Admission) -> None:
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
        self._sampling[slot] = sampling
        self._seeds[slot] = sampling.seed
        self._floats[:, slot] = sampling.temperature, sampling.top_p, sampling.min_p
        self._ints[:, slot] = sampling.top_k, sampling.logprobs, sampling.min_tokens

    def _build(self, slots: Ints, plan: Plan, fresh: Ints) -> HostBatch:
        slots, decodes = self._decode_groups(slots)
        positions = self._computed[slots]
        all_positions, all_kv_rows = [positions], [self._kv_rows(slots, positions)]
        self._computed[slots] += 1
        first = len(slots)
        chunks, ids, sampling_rows, joining = [], [], [np.arange(first)], []
        for chunk in plan.chunks:
            chunks.append(self._chunk(chunk, first))
            end = chunk.start + chunk.count
            span = np.arange(chunk.start, end)
            all_positions.append(span)
            all_kv_rows.append(self._kv_rows(chunk.slot, span))
            tokens = self._tokens[chunk.slot]
            ids.append(tokens[chunk.start : end])
            first += chunk.count
            if end == len(tokens):
                sampling_rows.append(np.array([first - 1]))
                joining.append(chunk.slot)
        self._decoding[joining] = True
        return HostBatch(
            decode_slots=slots,
            chunk_ids=np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64),
            positions=np.concatenate(all_positions),
            kv_rows=np.concatenate(all_kv_rows),
            decodes=decodes,
            chunks=tuple(chunks),
            fresh=fresh,
            samples=self._samples(
                np.concatenate(sampling_rows), np.concatenate([slots, np.array(joining, dtype=np.int64)])
            ),
        )

    def _decode_groups(self, slots: Ints) -> tuple[Ints, tuple[DecodeRows, ...]]:
        """Orders rows by the power of two of their context's blocks, so padding at most doubles a row."""
        if not len(slots):
            return slots, ()
        lengths = -(-(self._computed[slots] + 1) // BLOCK_SIZE)
        buckets = np.ceil(np.log2(lengths)).astype(np.int64)
        order = np.lexsort((slots, buckets))
        slots, buckets, lengths = slots[order], buckets[order], lengths[order]
        groups = []
        for bucket in np.unique(buckets):
            members = np.flatnonzero(buckets == bucket)
            chosen = slots[members]
            groups.append(
                DecodeRows(
                    first=int(members[0]),
                    contexts=self._computed[chosen] + 1,
                    blocks=self._blocks[chosen, : int(lengths[members].max())],
                )
            )
        return slots, tuple(groups)

    def _chunk(self, chunk: Chunk, first: int) -> ChunkRows:
        if chunk.start != self._computed[chunk.slot]:
            raise TableMismatch(
                f"slot {chunk.slot}: a chunk at {chunk.start}, {self._computed[chunk.slot]} computed"
            )
        end = chunk.start + chunk.count
        self._computed[chunk.slot] = end
        return ChunkRows(first, chunk.count, chunk.start, self._blocks[chunk.slot, : blocks_for(end)].copy())

    def _kv_rows(self, slots: Ints | int, positions: Ints) -> Ints:
        rows: Ints = self._blocks[slots, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
        return rows

    def _samples(self, rows: Ints, slots: Ints) -> SampleRows:
        positions = self._outputs[slots]
        self._outputs[slots] += 1
        top_k, logprobs, min_tokens = self._ints[:, slots]
        temperature, top_p, min_p = self._floats[:, slots]
        masked_rows, masked_ids = [], []
        for entry in np.flatnonzero(positions < min_tokens):
            sampling = self._sampling[slots[entry]]
            ends = {*sampling.stop_ids, *(() if sampling.ignore_eos else self._eos_ids)}
            masked_rows += [entry] * len(ends)
            masked_ids += sorted(ends)
        return SampleRows(
            rows=rows,
            slots=slots,
            incarnations=self._incarnations[slots],
            positions=positions,
            seeds=self._seeds[slots],
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            logprobs=logprobs,
            masked_rows=np.array(masked_rows, dtype=np.int64),
            masked_ids=np.array(masked_ids, dtype=np.int64),
        )
