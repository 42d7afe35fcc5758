"""Buckets: shapes that decode steps are padded to, so that few CUDA graphs serve all of them.

The input stage chooses the bucket of a step and pads it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from albireo.contract.plan import BLOCK_SIZE, GroupShape, blocks_for
from worker_svc.batch.inputs import DecodeRows, ForwardInput
from worker_svc.batch.slot_table import HostBatch
from worker_svc.buffers.arrays import NO_IDS, HostArray, Ints
from worker_svc.buffers.structs import Packing

MAX_GRAPHS = 128
"""Shapes that become graphs, first come first served; each costs memory and a pause at its first step."""

MAX_PADDING = 4
"""Most blocks that a padded step gathers for each one that it needs. Rounding up both sides stays below;
one long context among many short ones does not, and runs without a graph."""

CHEAP_BLOCKS = 256
"""Blocks whose gathering costs less than launching kernels one by one, whatever they are padding for."""


class Bucket(NamedTuple):
    """``rows`` decoding rows with ``blocks`` blocks of context each."""

    rows: int
    blocks: int

    @property
    def packing(self) -> Packing:
        """Of the ForwardInput of every step that runs in this bucket."""
        return _packing(self)

    @property
    def words(self) -> int:
        """Length of that input."""
        return self.packing.size


class DecodeBuckets:
    """Which bucket a step runs in. A function of the steps so far, so the same on every rank."""

    def __init__(self, shape: GroupShape) -> None:
        """The cache must have two blocks beyond ``shape.num_blocks``, ``last_token`` one slot more.

        The first of the blocks pads block tables and stays zero; the second takes what padding rows write,
        and is never read, so that none of their values can reach a request.
        """
        self._shape = shape
        self._known: set[Bucket] = set()
        self._most_blocks = max(CHEAP_BLOCKS, 2 * shape.num_blocks)

    @property
    def max_words(self) -> int:
        """At least the longest input of any bucket, in words."""
        rows = self._shape.max_seqs
        return Bucket(rows, -(-self._most_blocks // rows)).words

    def choose(self, batch: HostBatch) -> Bucket | None:
        """None for a step that prefills, streams or decodes nothing, and where padding costs too much."""
        forward = batch.forward
        if forward.chunks or forward.spans or not forward.decodes:
            return None
        needed = sum(group.blocks.size for group in forward.decodes)
        longest = max(group.blocks.shape[1] for group in forward.decodes)
        bucket = Bucket(
            rows=min(_round_rows(len(forward.decode_slots)), self._shape.max_seqs),
            blocks=min(_power_of_two(longest), blocks_for(self._shape.max_model_len)),
        )
        if bucket.rows * bucket.blocks > min(max(CHEAP_BLOCKS, MAX_PADDING * needed), self._most_blocks):
            return None
        if bucket not in self._known:
            if len(self._known) == MAX_GRAPHS:
                return None
            self._known.add(bucket)
        return bucket

    def pad(self, batch: HostBatch, bucket: Bucket) -> HostBatch:
        """The same step as one group of the bucket's shape: its own rows first, padding rows behind."""
        unread = (self._shape.num_blocks + 1) * BLOCK_SIZE
        slots = np.full(bucket.rows, self._shape.max_seqs, dtype=np.int64)
        positions = np.zeros(bucket.rows, dtype=np.int64)
        kv_rows = np.full(bucket.rows, unread, dtype=np.int64)
        blocks = np.full(bucket, self._shape.num_blocks, dtype=np.int64)
        forward = batch.forward
        count = len(forward.decode_slots)
        slots[:count] = forward.decode_slots
        positions[:count], kv_rows[:count] = forward.positions, forward.kv_rows
        for group in forward.decodes:
            rows, longest = group.blocks.shape
            blocks[group.first : group.first + rows, :longest] = group.blocks
        return replace(batch, forward=_one_group(slots, positions, kv_rows, blocks))


@cache
def _packing(bucket: Bucket) -> Packing:
    rows, blocks = (np.broadcast_to(np.int64(0), shape) for shape in (bucket.rows, bucket))  # take no memory
    return Packing(_one_group(rows, rows, rows, blocks))


def _one_group(slots: Ints, positions: Ints, kv_rows: Ints, blocks: Ints) -> ForwardInput[HostArray]:
    """Decoding rows alone, ``blocks`` ``[rows, blocks]``, all in one group."""
    return ForwardInput(slots, positions, kv_rows, (DecodeRows(0, blocks),), NO_IDS, ())


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _round_rows(rows: int) -> int:
    """1, 2, 4, 8, 16, 24, 32, ..."""
    return _power_of_two(rows) if rows <= 8 else -(-rows // 8) * 8
