"""Shapes that decode steps are padded to, so that few CUDA graphs serve all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from albireo.contract.plan import BLOCK_SIZE, GroupShape, blocks_for
from worker_svc.batch.slot_table import DecodeRows, HostBatch

MAX_GRAPHS = 128
"""Shapes that become graphs, first come first served; each costs memory and a pause at its first step."""

WASTE = 4
"""Most blocks that a padded step gathers for each one that it needs. Rounding up both sides stays below;
one long context beside many short ones does not, and runs without a graph."""

SMALL_CHANGE = 256
"""Blocks whose gathering costs less than launching kernels one by one, whatever they are padding for."""


class Bucket(NamedTuple):
    """``rows`` decoding rows with ``blocks`` blocks of context each."""

    rows: int
    blocks: int

    @property
    def words(self) -> int:
        """Length of the step's input: slot, position, KV row and block table of every row."""
        return self.rows * (3 + self.blocks)


class DecodeBuckets:
    """Which bucket a step runs in. A function of the steps so far, so the same on every rank."""

    def __init__(self, shape: GroupShape) -> None:
        """The cache must have two blocks beyond ``shape.num_blocks``, ``last_token`` one slot more.

        The first of the blocks pads block tables and stays zero; the second takes what padding rows write,
        and nobody reads it, so that no number of theirs can reach a request.
        """
        self._shape = shape
        self._known: set[Bucket] = set()
        self._most_blocks = max(SMALL_CHANGE, 2 * shape.num_blocks)

    @property
    def max_words(self) -> int:
        """Longest input of any bucket, in words."""
        return 3 * self._shape.max_seqs + self._most_blocks

    def choose(self, batch: HostBatch) -> Bucket | None:
        """None for a step that prefills or decodes nothing, and for one whose padding costs too much."""
        if batch.chunks or not batch.decodes:
            return None
        needed = sum(group.blocks.size for group in batch.decodes)
        longest = max(group.blocks.shape[1] for group in batch.decodes)
        bucket = Bucket(
            rows=min(_round_rows(len(batch.decode_slots)), self._shape.max_seqs),
            blocks=min(_power_of_two(longest), blocks_for(self._shape.max_model_len)),
        )
        if bucket.rows * bucket.blocks > min(max(SMALL_CHANGE, WASTE * needed), self._most_blocks):
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
        count = len(batch.decode_slots)
        slots[:count], positions[:count], kv_rows[:count] = batch.decode_slots, batch.positions, batch.kv_rows
        for group in batch.decodes:
            rows, longest = group.blocks.shape
            blocks[group.first : group.first + rows, :longest] = group.blocks
        return replace(
            batch,
            decode_slots=slots,
            positions=positions,
            kv_rows=kv_rows,
            decodes=(DecodeRows(first=0, contexts=positions + 1, blocks=blocks),),
        )


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _round_rows(rows: int) -> int:
    """1, 2, 4, 8, 16, 24, 32, ..."""
    return _power_of_two(rows) if rows <= 8 else -(-rows // 8) * 8
