"""The model: one rank's share of a decoder of the Llama family. The compute stage calls it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from worker_svc.kernels.interface import Heads, Kernels, Norm
from worker_svc.model.attention import Attention, AttentionPlan
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import LayerCache
from worker_svc.model.linear import Head, Linear, RowParallelLinear, VocabParallelEmbedding
from worker_svc.model.rope import RotaryTable

TILE_BYTES = 20 << 20
"""Of what the first product of a feed-forward layer makes at a time: less than a last-level cache. Besides,
the C library gives buffers from 32 MiB on back to the system: each of their pages would fault every time."""


@dataclass(frozen=True, slots=True)
class LayerRows:
    """The ``n`` rows of a layer."""

    rope: tuple[Tensor, Tensor]  # cosines and sines of their positions
    kv_rows: Tensor  # [n] int64
    plan: AttentionPlan
    ends: Tensor | None = None  # [e] int64: those that go on behind their keys and values, in ``plan`` alone


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """Self-attention over this rank's heads."""

    qkv: Linear
    out: RowParallelLinear
    heads: Heads
    kernels: Kernels
    attend: Attention

    def __call__(self, x: Tensor, rows: LayerRows, cache: LayerCache) -> Tensor:
        q = self.kernels.rotate(self.qkv(x), self.heads, rows.rope, cache.keys, cache.values, rows.kv_rows)
        if rows.ends is not None:
            q = q.index_select(0, rows.ends)
        return self.out(self.attend(q, cache, rows.plan))


@dataclass(frozen=True, slots=True)
class MLP:
    """Gated feed-forward layer over this rank's share of the intermediate units."""

    gate_up: Linear
    down: RowParallelLinear
    kernels: Kernels

    def __call__(self, x: Tensor) -> Tensor:
        """On CPUs a few rows at a time, whose intermediate units the cache holds."""
        parts = [self.down.part(self.kernels.gate(self.gate_up(some))) for some in self._tiles(x)]
        return self.down.sum(parts[0] if len(parts) == 1 else torch.cat(parts))

    def is_one_tile(self, x: Tensor) -> bool:
        """Whether all rows are taken at a time."""
        return x.is_cuda or len(x) <= self._most_rows(x)

    def _tiles(self, x: Tensor) -> Sequence[Tensor]:
        return (x,) if self.is_one_tile(x) else x.chunk(-(-len(x) // self._most_rows(x)))

    def _most_rows(self, x: Tensor) -> int:
        return max(1, TILE_BYTES // (self.gate_up.outputs * x.dtype.itemsize))


@dataclass(frozen=True, slots=True)
class Block:
    """One decoder layer."""

    attention_norm: Norm
    attention: AttentionLayer
    mlp_norm: Norm
    mlp: MLP
    kernels: Kernels

    def __call__(
        self, x: Tensor, added: Tensor | None, rows: LayerRows, cache: LayerCache
    ) -> tuple[Tensor, Tensor]:
        """Takes and returns hidden states in two parts: ``x``, which it may change in place, and what is
        still to be added to it."""
        found = self.attention(self.kernels.norm(x, self.attention_norm, added), rows, cache)
        if rows.ends is not None:
            x = x.index_select(0, rows.ends)
        return x, self.mlp(self.kernels.norm(x, self.mlp_norm, found))


@dataclass(frozen=True, slots=True)
class Ends:
    """The rows of a step whose hidden states are wanted, where these are not all."""

    rows: Tensor  # [e] int64, ascending
    plan: AttentionPlan  # of these rows alone


class WholeLayers(Protocol):
    """Layers that run without Python between their kernels."""

    def takes(self, x: Tensor, caches: Iterable[LayerCache]) -> bool:
        """Whether it runs rows ``x`` ``[n, hidden]``."""
        ...

    def __call__(self, x: Tensor, rows: LayerRows, caches: Iterable[LayerCache]) -> Tensor:
        """As many layers as there are ``caches``: changes ``x`` in place, and returns what is still to be
        added to it, good until the next call."""
        ...


@dataclass(frozen=True, slots=True)
class Transformer:
    """Token ids to this rank's columns of the logits."""

    config: ModelConfig
    embedding: VocabParallelEmbedding
    blocks: tuple[Block, ...]
    norm: Norm
    head: Head
    rope: RotaryTable
    kernels: Kernels
    attention: Attention
    together: WholeLayers | None = None  # the same layers, where something runs them as a whole

    def __call__(
        self,
        ids: Tensor,
        positions: Tensor,
        kv_rows: Tensor,
        sample_rows: Tensor,
        plan: AttentionPlan,
        caches: Iterable[LayerCache],
    ) -> Tensor:
        """Runs the ``n`` rows of a step; returns logits of ``sample_rows`` ``[s]`` int64, among the n."""
        return self.logits(self.hidden(ids, positions, kv_rows, plan, caches), sample_rows)

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor,
        kv_rows: Tensor,
        plan: AttentionPlan,
        caches: Iterable[LayerCache],
        ends: Ends | None = None,
    ) -> Tensor:
        """All layers for the ``n`` rows of a step: ``[n, hidden]``, or ``[e, hidden]`` of its ``ends``.

        ``ids``, ``positions``, ``kv_rows``: ``[n]`` int64. ``caches``: of each layer, asked for when the one
        before it has been launched; where the layer's KV is still on its way, that waits for it. A tuple if
        all are there. Of rows that are no ends the last layer computes keys and values only.
        """
        x, added = self.embedding(ids), None
        rows = LayerRows(self.rope.at(positions), kv_rows, plan)
        last = rows if ends is None else replace(rows, plan=ends.plan, ends=ends.rows)
        blocks, rest = self.blocks, iter(caches)
        count = len(blocks) - (ends is not None)
        if self.together is not None and count and self.together.takes(x, caches):
            added = self.together(x, rows, islice(rest, count))
            blocks = blocks[count:]
        each = [*[rows] * (len(blocks) - 1), last][: len(blocks)]
        return run_layers(zip(blocks, rest, each, strict=True), x, added)

    def logits(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """This rank's columns for ``rows`` ``[s]``: ``[s, padded vocabulary / ranks]``, by the head."""
        return self.head(self.kernels.norm(hidden.index_select(0, rows), self.norm))


def run_layers(
    layers: Iterable[tuple[Block, LayerCache, LayerRows]], x: Tensor, added: Tensor | None = None
) -> Tensor:
    """Some layers, one after the other, of ``x`` ``[n, hidden]``, which they may change in place. ``added``:
    what is still to be added to it before the first."""
    for block, cache, rows in layers:
        x, added = block(x, added, rows, cache)
    return x if added is None else x.add_(added)
