"""Attention over the paged cache.

Everything that follows from the plan alone (which blocks, which masks) is built once a step, in the
input stage, as :class:`AttentionPlan`; a layer only gathers and multiplies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE
from worker_svc.model.kv_cache import LayerCache
from worker_svc.model.streamed_attention import Piece, attend


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decoding rows of similar context length: ``rows`` of them, from row ``first`` of the step."""

    first: int
    rows: int
    blocks: Tensor  # [rows * blocks of the longest]
    mask: Tensor  # [rows, 1, 1, context of the longest], added to the scores


@dataclass(frozen=True, slots=True)
class ChunkView:
    """One prefill chunk: ``rows`` consecutive tokens of one request, from row ``first`` of the step."""

    first: int
    rows: int
    blocks: Tensor  # [blocks of its context]
    mask: Tensor  # [1, 1, rows, context], added to the scores


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
    """The rows of a batch: decode groups, then chunks, then rows of streamed slots."""

    decodes: tuple[DecodeGroup, ...]
    chunks: tuple[ChunkView, ...]
    streams: tuple[StreamView, ...] = ()


class Attention(Protocol):
    """Attends to what the cache holds, the step's own keys and values included."""

    def __call__(self, q: Tensor, cache: LayerCache, plan: AttentionPlan) -> Tensor:
        """``q``: ``[n, heads, head_dim]``. Returns ``[n, heads * head_dim]``."""
        ...


class SdpaAttention:
    """torch's scaled_dot_product_attention on gathered blocks; runs everywhere.

    The query heads that share a KV head become the query positions of one head, so grouped-query
    attention copies no keys or values.
    """

    def __init__(self) -> None:
        # cuDNN's attention, torch's first choice on Hopper, builds a plan for every new shape, which takes
        # the host tens of milliseconds; here the shape changes with the contexts.
        torch.backends.cuda.enable_cudnn_sdp(False)
        # One gather buffer for all layers: fresh ones of this size would cost a page fault each page. On the
        # CPU only: torch keeps CUDA memory, and a graph must not refer to a buffer that may be replaced.
        self._keys = torch.empty(0)
        self._values = torch.empty(0)

    def __call__(self, q: Tensor, cache: LayerCache, plan: AttentionPlan) -> Tensor:
        n, heads, head_dim = q.shape
        kv_heads = cache.keys.shape[2]
        out = q.new_empty(n, heads, head_dim)
        for group in plan.decodes:
            rows = slice(group.first, group.first + group.rows)
            keys, values = self._gather(cache, group.blocks, group.rows)
            folded = q[rows].view(group.rows, kv_heads, heads // kv_heads, head_dim)
            found = F.scaled_dot_product_attention(folded, keys, values, attn_mask=group.mask)
            out[rows] = found.reshape(group.rows, heads, head_dim)
        for chunk in plan.chunks:
            rows = slice(chunk.first, chunk.first + chunk.rows)
            keys, values = self._gather(cache, chunk.blocks, 1)
            found = F.scaled_dot_product_attention(
                q[rows].transpose(0, 1).unsqueeze(0), keys, values, attn_mask=chunk.mask, enable_gqa=True
            )
            out[rows] = found[0].transpose(0, 1)
        for stream in plan.streams:
            rows = slice(stream.first, stream.first + stream.rows)
            out[rows] = attend(q[rows], self._pieces(cache, stream))
        return out.view(n, heads * head_dim)

    def _pieces(self, cache: LayerCache, stream: StreamView) -> Iterator[Piece]:
        """The context of a streamed slot's rows: what a tier holds, what the device does, and themselves."""
        yield from stream.pieces.next_layer()
        # [1, kv heads, context, head_dim], as the other rows have it
        keys, values = (x[0].transpose(0, 1) for x in self._gather(cache, stream.blocks, 1))
        before, end = stream.before, stream.before + stream.rows
        if before:
            yield Piece(keys[:before], values[:before])
        yield Piece(keys[before:end], values[before:end], causal=True)

    def _gather(self, cache: LayerCache, blocks: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Keys and values ``[rows, kv heads, context, head_dim]`` of ``rows`` requests."""
        if cache.keys.is_cuda:
            keys, values = cache.keys.index_select(0, blocks), cache.values.index_select(0, blocks)
        else:
            keys, values = self._into_buffers(cache, blocks)
        split = (rows, len(blocks) // rows * BLOCK_SIZE, *cache.keys.shape[2:])
        return keys.view(split).transpose(1, 2), values.view(split).transpose(1, 2)

    def _into_buffers(self, cache: LayerCache, blocks: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(blocks), *cache.keys.shape[1:])
        size = len(blocks) * cache.keys[0].numel()
        if self._keys.numel() < size or self._keys.dtype != cache.keys.dtype:
            self._keys, self._values = (cache.keys.new_empty(size) for _ in range(2))
        keys, values = self._keys[:size].view(shape), self._values[:size].view(shape)
        torch.index_select(cache.keys, 0, blocks, out=keys)
        torch.index_select(cache.values, 0, blocks, out=values)
        return keys, values
