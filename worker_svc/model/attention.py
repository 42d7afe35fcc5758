"""Attention over the paged cache.

Everything that follows from the plan alone (which blocks, which masks) is built once a step, in the
input stage, as :class:`AttentionPlan`; the layers only multiply.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from worker_svc.kernels.interface import Chunks
from worker_svc.model.kv_cache import LayerCache
from worker_svc.model.streamed_attention import Piece, attend


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of a step, from row ``first`` on: decoding ones of similar context length, or one chunk's; with
    ragged block tables all decoding ones, or all chunks'."""

    first: int
    blocks: Tensor  # [rows, blocks of the longest]; of a chunk, which is of one request, or ragged [blocks]
    positions: Tensor  # [rows]
    mask: Tensor | None  # [rows, 1, 1, context], of a chunk [1, 1, rows, context]; added to the scores
    # Of ragged block tables:
    starts: Tensor | None = None  # [rows]: where that of each decoding row begins in ``blocks``
    chunks: Chunks | None = None

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + len(self.positions))


class LayerPieces(Protocol):
    """The tokens of one streamed slot that are not on the device."""

    def next_layer(self) -> Iterable[Piece]:
        """Those of the layer after the one that was asked for last. All of them are taken, and each is good
        until the next is asked for."""
        ...


@dataclass(frozen=True, slots=True)
class StreamView:
    """Consecutive tokens of a streamed slot: ``rows`` of them, from row ``first`` of a batch."""

    first: int
    rows: int
    before: int  # tokens of the context on the device that are before the first of the rows
    blocks: Tensor  # [blocks of the context on the device]
    pieces: LayerPieces


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """The rows of a batch: decoding ones, then chunks, then rows of streamed slots."""

    decodes: tuple[RowGroup, ...]
    chunks: tuple[RowGroup, ...]
    streams: tuple[StreamView, ...] = ()


class PagedAttention(Protocol):
    """Attention of rows whose whole context is in the cache, their own keys and values included."""

    name: str
    """For people."""
    masked: bool
    """Whether it wants masks; else it goes by the positions of the rows."""
    ragged: bool
    """Whether it takes all decoding rows, and all chunks, as one group with ragged block tables. Then what it
    launches for decoding rows depends on their number alone, and a CUDA graph can hold it."""

    def decodes(self, q: Tensor, cache: LayerCache, group: RowGroup, out: Tensor) -> None:
        """Of decoding rows ``q`` ``[rows, heads, head_dim]`` into ``out``, of the same shape."""
        ...

    def chunk(self, q: Tensor, cache: LayerCache, group: RowGroup, out: Tensor) -> None:
        """Likewise, of the rows of a chunk, or with ragged block tables of all."""
        ...


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention of all rows of a step."""

    paged: PagedAttention

    def __call__(self, q: Tensor, cache: LayerCache, plan: AttentionPlan) -> Tensor:
        """``q``: ``[n, heads, head_dim]``. Returns ``[n, heads * head_dim]``."""
        out = torch.empty_like(q)
        for group in plan.decodes:
            self.paged.decodes(q[group.rows], cache, group, out[group.rows])
        for group in plan.chunks:
            self.paged.chunk(q[group.rows], cache, group, out[group.rows])
        for stream in plan.streams:
            rows = slice(stream.first, stream.first + stream.rows)
            out[rows] = attend(q[rows], _pieces(cache, stream))
        return out.flatten(1)


def _pieces(cache: LayerCache, stream: StreamView) -> Iterator[Piece]:
    """The context of a streamed slot's rows: what a tier holds, what the device does, and themselves."""
    yield from stream.pieces.next_layer()
    keys, values = (x.index_select(0, stream.blocks).flatten(0, 1) for x in (cache.keys, cache.values))
    before, end = stream.before, stream.before + stream.rows
    if before:
        yield Piece(keys[:before], values[:before])
    yield Piece(keys[before:end], values[before:end], causal=True)
