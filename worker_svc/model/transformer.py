"""The model: one rank's share of a decoder of the Llama family. The compute stage calls it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from worker_svc.model.attention import Attention, AttentionPlan
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import LayerCache
from worker_svc.model.linear import Linear, RowParallelLinear, VocabParallelEmbedding
from worker_svc.model.rope import RotaryTable, rotate


class RMSNorm:
    """Root-mean-square norm over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight
        self._eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self._weight.shape, self._weight, self._eps)


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """Self-attention over this rank's heads."""

    qkv: Linear
    out: RowParallelLinear
    q_norm: RMSNorm | None
    k_norm: RMSNorm | None
    heads: int
    kv_heads: int
    attend: Attention

    def __call__(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        cache: LayerCache,
        kv_rows: Tensor,
        plan: AttentionPlan,
    ) -> Tensor:
        qkv = self.qkv(x).unflatten(1, (self.heads + 2 * self.kv_heads, -1))
        values = qkv[:, self.heads + self.kv_heads :]
        if self.q_norm is not None and self.k_norm is not None:
            q = rotate(self.q_norm(qkv[:, : self.heads]), *rope)
            keys = rotate(self.k_norm(qkv[:, self.heads : self.heads + self.kv_heads]), *rope)
        else:
            rotated = rotate(qkv[:, : self.heads + self.kv_heads], *rope)
            q, keys = rotated[:, : self.heads], rotated[:, self.heads :]
        cache.write(kv_rows, keys, values)
        return self.out(self.attend(q, cache, plan))


@dataclass(frozen=True, slots=True)
class MLP:
    """Gated feed-forward layer over this rank's share of the intermediate units."""

    gate_up: Linear
    down: RowParallelLinear

    def __call__(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


@dataclass(frozen=True, slots=True)
class Block:
    """One decoder layer."""

    attention_norm: RMSNorm
    attention: AttentionLayer
    mlp_norm: RMSNorm
    mlp: MLP


@dataclass(frozen=True, slots=True)
class Transformer:
    """Token ids to this rank's columns of the logits."""

    config: ModelConfig
    embedding: VocabParallelEmbedding
    blocks: tuple[Block, ...]
    norm: RMSNorm
    head: Linear
    rope: RotaryTable

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
    ) -> Tensor:
        """All layers for the ``n`` rows of a step: ``[n, hidden]``.

        ``ids``, ``positions``, ``kv_rows``: ``[n]`` int64. ``caches``: of each layer, asked for when the one
        before it has been launched; where the layer's KV is still on its way, that waits for it.
        """
        x = self.embedding(ids)
        return run_layers(zip(self.blocks, caches, strict=True), x, self.rope.at(positions), kv_rows, plan)

    def logits(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """This rank's columns for ``rows`` ``[s]``: ``[s, padded vocabulary / ranks]``; not yet fp32."""
        return self.head(self.norm(hidden.index_select(0, rows)))


def run_layers(
    layers: Iterable[tuple[Block, LayerCache]],
    x: Tensor,
    rope: tuple[Tensor, Tensor],
    kv_rows: Tensor,
    plan: AttentionPlan,
) -> Tensor:
    """Some layers, one after the other, for ``n`` rows: ``x`` ``[n, hidden]`` becomes the same shape."""
    for block, cache in layers:
        x = x + block.attention(block.attention_norm(x), rope, cache, kv_rows, plan)
        x = x + block.mlp(block.mlp_norm(x))
    return x
