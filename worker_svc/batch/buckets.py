"""Buckets: numbers of rows that decode steps are padded to, so that few CUDA graphs serve all of them.

The input stage chooses the bucket of a step and pads it. Attention with ragged block tables launches what
depends on the rows alone, so contexts may have any length.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from albireo.contract.plan import BLOCK_SIZE, GroupShape, blocks_for
from worker_svc.batch.inputs import ForwardInput, RaggedRows
from worker_svc.batch.slot_table import HostBatch
from worker_svc.buffers.arrays import NO_IDS, HostArray, Ints
from worker_svc.buffers.buckets import bucket_of, bucket_sizes
from worker_svc.buffers.structs import Packing

SHARED = 8
"""Most requests among which a block is shared on average, in a step that runs as a graph: this bounds the
memory for block tables."""


class DecodeBuckets:
    """Which bucket a step runs in: one of ``sizes``, its number of rows, which ascend."""

    def __init__(self, shape: GroupShape) -> None:
        """The cache must have two blocks beyond ``shape.num_blocks``, ``last_token`` one slot more.

        The first of the blocks is what padding rows read and stays zero; the second takes what they write,
        and is never read, so that none of their values can reach a request.
        """
        self._shape = shape
        self.sizes = bucket_sizes(shape.max_seqs)
        own = min(shape.max_seqs * blocks_for(shape.max_model_len), SHARED * shape.num_blocks)
        self._most_blocks = own + 1  # of the padding rows

    def packing(self, rows: int) -> Packing:
        """Of a graph's input, a ForwardInput. Its block tables come last, and have all their memory; of a
        step's own input the words are the first of these."""
        whole = np.broadcast_to(np.int64(0), self._most_blocks)  # takes no memory
        nothing = np.broadcast_to(np.int64(0), rows)
        return Packing(_input(nothing, nothing, nothing, nothing, whole))

    def choose(self, batch: HostBatch) -> int | None:
        """None for a step that prefills, streams or decodes nothing, and for block tables that are larger
        than a graph has memory for."""
        forward = batch.forward
        if forward.chunks or forward.spans or not forward.decodes:
            return None
        [tables] = forward.decodes
        if len(tables.blocks) >= self._most_blocks:
            return None
        return bucket_of(len(forward.decode_slots), self.sizes)

    def pad(self, batch: HostBatch, rows: int) -> HostBatch:
        """The same step with as many ``rows`` as its bucket has: its own first, padding rows behind."""
        forward, padding = batch.forward, self.padding(rows - len(batch.forward.decode_slots))
        [own], [none] = forward.decodes, padding.decodes
        assert isinstance(own, RaggedRows)
        assert isinstance(none, RaggedRows)
        padded = _input(
            np.concatenate([forward.decode_slots, padding.decode_slots]),
            np.concatenate([forward.positions, padding.positions]),
            np.concatenate([forward.kv_rows, padding.kv_rows]),
            np.concatenate([own.starts, none.starts + len(own.blocks)]),
            np.concatenate([own.blocks, none.blocks]),
        )
        return replace(batch, forward=padded)

    def padding(self, rows: int) -> ForwardInput[HostArray]:
        """A step of padding rows alone: they change nothing that is read."""
        unread = (self._shape.num_blocks + 1) * BLOCK_SIZE
        return _input(
            np.full(rows, self._shape.max_seqs, dtype=np.int64),
            np.zeros(rows, dtype=np.int64),
            np.full(rows, unread, dtype=np.int64),
            np.zeros(rows, dtype=np.int64),
            np.array([self._shape.num_blocks], dtype=np.int64),
        )


def _input(
    slots: Ints, positions: Ints, kv_rows: Ints, starts: Ints, blocks: Ints
) -> ForwardInput[HostArray]:
    """Decoding rows alone."""
    return ForwardInput(slots, positions, kv_rows, (RaggedRows(starts, blocks),), NO_IDS, ())
