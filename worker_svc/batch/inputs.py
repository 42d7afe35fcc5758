"""The input of one step: numpy arrays on the host, the same as tensors on the device.

The slot table makes the forward's part, :class:`worker_svc.batch.staging.Staging` the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE
from worker_svc.buffers.arrays import HostArray, Ints
from worker_svc.buffers.structs import A, Struct, int64
from worker_svc.kernels.interface import Chunks
from worker_svc.model.attention import AttentionPlan, RowGroup
from worker_svc.model.causal_mask import CausalMasks
from worker_svc.model.transformer import Ends
from worker_svc.sampling.inputs import SamplingInput
from worker_svc.sampling.prompt_logprobs import PromptInput


@dataclass(frozen=True, slots=True)
class DecodeRows(Struct[A]):
    """Decoding rows of similar context length, from row ``first`` of the step."""

    first: int
    blocks: Annotated[A, int64("rows", "blocks of the longest")]  # padded with the scratch block


@dataclass(frozen=True, slots=True)
class RaggedRows(Struct[A]):
    """All decoding rows of the step: their block tables one behind the other, each as long as its context."""

    starts: Annotated[A, int64("rows")]  # where the row's own begins in ``blocks``
    blocks: Annotated[A, int64("blocks of all")]


@dataclass(frozen=True, slots=True)
class ChunkRows(Struct[A]):
    """The rows of one prefill chunk, from row ``first`` of the step."""

    first: int
    start: int  # the position of that row
    count: int
    ends: bool  # the last of them samples: the prompt is complete
    blocks: Annotated[A, int64("blocks")]  # of the context; none where they are in ``RaggedChunks``


@dataclass(frozen=True, slots=True)
class RaggedChunks(Struct[A]):
    """The block tables of all chunks of the step, one behind the other."""

    firsts: Annotated[A, int64("chunks and one")]  # of each, among the chunks' rows; then how many these are
    starts: Annotated[A, int64("chunks")]  # where the chunk's own begins in ``blocks``
    # Of the chunks whose last row samples: where their block tables begin, and the position of that row.
    end_starts: Annotated[A, int64("ends")]
    end_positions: Annotated[A, int64("ends")]
    blocks: Annotated[A, int64("blocks of all")]


@dataclass(eq=False, slots=True)
class HiddenStates:
    """Of rows under way, between their steps. It goes with the stay of a request in its slot, and with the
    steps that are staged; the compute stage alone looks into it."""

    x: Tensor | None = None  # [rows, hidden], as the last layer that has run left it


@dataclass(frozen=True, slots=True)
class SpanInput(Struct[A]):
    """The rows of one span."""

    slot: int
    states: HiddenStates
    first_layer: int
    last_layer: int  # the first one that is not computed
    before: int  # tokens of the context that are on the device and come before the rows
    # None where they have none: at layer 0 the row takes ``last_token``, above it hidden states.
    ids: Annotated[A | None, int64("rows")]
    positions: Annotated[A, int64("rows")]
    kv_rows: Annotated[A, int64("rows")]
    blocks: Annotated[A, int64("blocks")]  # of the context on the device


@dataclass(frozen=True, slots=True)
class ForwardInput(Struct[A]):
    """The rows that run through the model: decoding rows first, in groups, then those of the chunks.

    Of a step that only decodes, in one group with ragged block tables, this is the whole input of a CUDA
    graph.
    """

    decode_slots: Annotated[A, int64("decodes")]  # where the decoding rows find their token
    positions: Annotated[A, int64("rows")]
    kv_rows: Annotated[A, int64("rows")]  # block * 16 + offset of each row's own key and value
    decodes: tuple[DecodeRows[A] | RaggedRows[A], ...]
    chunk_ids: Annotated[A, int64("chunk rows")]  # tokens of the chunks' rows
    chunks: tuple[ChunkRows[A], ...]
    spans: tuple[SpanInput[A], ...] = ()  # of streamed slots; those of their last layers join the rows
    chunk_tables: RaggedChunks[A] | None = None


@dataclass(frozen=True, slots=True)
class StepInput(Struct[A]):
    """All arrays of one step."""

    forward: ForwardInput[A]
    decode_ids: Annotated[A | None, int64("decodes")]  # None: they are on the device, in ``last_token``
    fresh: Annotated[A, int64("fresh")]  # blocks to clear before the forward
    ends: Annotated[A | None, int64("ends")]  # rows whose hidden states are wanted; None: all
    sample_rows: Annotated[A, int64("samples")]  # among these
    sample_slots: Annotated[A, int64("samples")]
    sampling: SamplingInput[A]
    prompts: PromptInput[A] | None


def attention_plan(forward: ForwardInput[Tensor], masks: CausalMasks | None) -> AttentionPlan:
    """What the layers' attention needs of ``forward``: a row sees its own position and all before it.

    ``masks``: None for an attention that wants none.
    """
    decodes, chunks = [], []
    for group in forward.decodes:
        if isinstance(group, RaggedRows):
            positions = forward.positions[: len(group.starts)]
            decodes.append(RowGroup(0, group.blocks, positions, None, group.starts))
            continue
        rows, longest = group.blocks.shape
        positions = forward.positions[group.first : group.first + rows]
        mask = None if masks is None else masks.rows(positions, longest * BLOCK_SIZE)[:, None, None]
        decodes.append(RowGroup(group.first, group.blocks, positions, mask))
    if forward.chunk_tables is not None:
        return AttentionPlan(tuple(decodes), (_all_chunks(forward, forward.chunk_tables),))
    for chunk in forward.chunks:
        positions = forward.positions[chunk.first : chunk.first + chunk.count]
        mask = None if masks is None else masks.rows(positions, len(chunk.blocks) * BLOCK_SIZE)[None, None]
        chunks.append(RowGroup(chunk.first, chunk.blocks, positions, mask))
    return AttentionPlan(tuple(decodes), tuple(chunks))


def _all_chunks(forward: ForwardInput[Tensor], tables: RaggedChunks[Tensor]) -> RowGroup:
    first, count = len(forward.decode_slots), len(forward.chunk_ids)
    positions = forward.positions[first : first + count]
    counts = tuple(chunk.count for chunk in forward.chunks)
    contexts = tuple(chunk.start + chunk.count for chunk in forward.chunks)
    chunks = Chunks(tables.blocks, tables.starts, tables.firsts, positions, counts, contexts)
    return RowGroup(first, tables.blocks, positions, None, chunks=chunks)


def end_rows(forward: ForwardInput[HostArray]) -> Ints:
    """The rows that sample: all decoding ones, and the last ones of chunks that complete a prompt."""
    last = [chunk.first + chunk.count - 1 for chunk in forward.chunks if chunk.ends]
    return np.concatenate([np.arange(len(forward.decode_slots)), np.array(last, dtype=np.int64)])


def ends_of(plan: AttentionPlan, forward: ForwardInput[Tensor], rows: Tensor) -> Ends:
    """How the ``rows`` that :func:`end_rows` has found attend."""
    first, chunks = len(forward.decode_slots), list[RowGroup]()
    if (tables := forward.chunk_tables) is not None:  # one row of each: as decoding ones
        ends = RowGroup(first, tables.blocks, tables.end_positions, None, tables.end_starts)
        return Ends(rows, AttentionPlan((*plan.decodes, ends), ()))
    for chunk, group in zip(forward.chunks, plan.chunks, strict=True):
        if chunk.ends:
            mask = None if group.mask is None else group.mask[:, :, -1:]
            chunks.append(RowGroup(first + len(chunks), group.blocks, group.positions[-1:], mask))
    return Ends(rows, AttentionPlan(plan.decodes, tuple(chunks)))
