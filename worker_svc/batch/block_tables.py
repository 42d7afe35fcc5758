"""Block tables of a step's rows, as its attention takes them. The slot table makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from worker_svc.batch.inputs import ChunkRows, DecodeRows, RaggedChunks, RaggedRows
from worker_svc.buffers.arrays import NO_IDS, HostArray, Ints

Decodes = tuple[Ints, tuple[DecodeRows[HostArray] | RaggedRows[HostArray], ...]]
"""Slots in the order of the rows, and their block tables."""


def grouped(table: Ints, slots: Ints, lengths: Ints) -> Decodes:
    """Orders rows by the power of two of their context's blocks, so that padding at most doubles a row.

    ``table`` ``[slots, most]``; ``lengths`` ``[rows]``: blocks of the contexts of ``slots`` ``[rows]``.
    """
    if not len(slots):
        return slots, ()
    powers = np.ceil(np.log2(lengths)).astype(np.int64)
    order = np.lexsort((slots, powers))
    slots, powers, lengths = slots[order], powers[order], lengths[order]
    groups = []
    for power in np.unique(powers):
        members = np.flatnonzero(powers == power)
        longest = int(lengths[members].max())
        groups.append(DecodeRows(first=int(members[0]), blocks=table[slots[members], :longest]))
    return slots, tuple(groups)


def ragged(table: Ints, slots: Ints, lengths: Ints) -> Decodes:
    """All rows as one group, none padded: what is copied is what is read. As :func:`grouped`."""
    if not len(slots):
        return slots, ()
    starts = np.cumsum(lengths) - lengths
    at = np.arange(int(lengths.sum())) + np.repeat(slots * table.shape[1] - starts, lengths)
    return slots, (RaggedRows(starts=starts, blocks=table.ravel()[at]),)


def ragged_chunks(
    chunks: Sequence[ChunkRows[HostArray]],
) -> tuple[tuple[ChunkRows[HostArray], ...], RaggedChunks[HostArray] | None]:
    """The chunks without their block tables, and these; None where there are no chunks."""
    if not chunks:
        return (), None
    counts = np.array([chunk.count for chunk in chunks])
    tables = [chunk.blocks for chunk in chunks]
    lengths = np.array([len(table) for table in tables])
    starts = np.cumsum(lengths) - lengths
    ends = np.array([chunk.ends for chunk in chunks])
    last = np.array([chunk.start + chunk.count - 1 for chunk in chunks])
    ragged = RaggedChunks(
        firsts=np.concatenate([[0], np.cumsum(counts)]),
        starts=starts,
        end_starts=starts[ends],
        end_positions=last[ends],
        blocks=np.concatenate(tables),
    )
    return tuple(replace(chunk, blocks=NO_IDS) for chunk in chunks), ragged
