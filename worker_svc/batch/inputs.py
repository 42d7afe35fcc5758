"""The input of one step: numpy arrays on the host, the same as tensors on the device.

The slot table makes the forward's part, :class:`worker_svc.batch.staging.Staging` the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE
from worker_svc.buffers.structs import A, Struct, int64
from worker_svc.model.attention import AttentionPlan, ChunkView, DecodeGroup
from worker_svc.model.causal_mask import CausalMasks
from worker_svc.sampling.inputs import SamplingInput
from worker_svc.sampling.prompt_logprobs import PromptInput


@dataclass(frozen=True, slots=True)
class DecodeRows(Struct[A]):
    """Decoding rows of similar context length, from row ``first`` of the step."""

    first: int
    blocks: Annotated[A, int64("rows", "blocks of the longest")]  # padded with the scratch block


@dataclass(frozen=True, slots=True)
class ChunkRows(Struct[A]):
    """The rows of one prefill chunk, from row ``first`` of the step."""

    first: int
    count: int
    blocks: Annotated[A, int64("blocks")]  # of the context


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

    Of a step that only decodes, in one group, this is the whole input of a CUDA graph.
    """

    decode_slots: Annotated[A, int64("decodes")]  # where the decoding rows find their token
    positions: Annotated[A, int64("rows")]
    kv_rows: Annotated[A, int64("rows")]  # block * 16 + offset of each row's own key and value
    decodes: tuple[DecodeRows[A], ...]
    chunk_ids: Annotated[A, int64("chunk rows")]  # tokens of the chunks' rows
    chunks: tuple[ChunkRows[A], ...]
    spans: tuple[SpanInput[A], ...] = ()  # of streamed slots; those of their last layers join the rows


@dataclass(frozen=True, slots=True)
class StepInput(Struct[A]):
    """All arrays of one step. ``forward`` comes first: a graph copies its input from the first words."""

    forward: ForwardInput[A]
    decode_ids: Annotated[A | None, int64("decodes")]  # None: they are on the device, in ``last_token``
    fresh: Annotated[A, int64("fresh")]  # blocks to clear before the forward
    sample_rows: Annotated[A, int64("samples")]  # among the rows of the forward
    sample_slots: Annotated[A, int64("samples")]
    sampling: SamplingInput[A]
    prompts: PromptInput[A] | None


def attention_plan(forward: ForwardInput[Tensor], masks: CausalMasks) -> AttentionPlan:
    """What the layers' attention needs of ``forward``: a row sees its own position and all before it."""
    decodes, chunks = [], []
    for group in forward.decodes:
        rows, longest = group.blocks.shape
        positions = forward.positions[group.first : group.first + rows]
        mask = masks.rows(positions, longest * BLOCK_SIZE)[:, None, None]
        decodes.append(DecodeGroup(group.first, rows, group.blocks.view(-1), mask))
    for chunk in forward.chunks:
        positions = forward.positions[chunk.first : chunk.first + chunk.count]
        mask = masks.rows(positions, len(chunk.blocks) * BLOCK_SIZE)[None, None]
        chunks.append(ChunkView(chunk.first, chunk.count, chunk.blocks, mask))
    return AttentionPlan(tuple(decodes), tuple(chunks))
