"""Chunks to try an attention with, when a rank starts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from worker_svc.kernels.interface import ChunkAttention, Chunks, Heads

QUERY_SIZE = 3.0
"""Standard deviation of queries: some tokens weigh much, so that a row which sees a wrong one is far off."""


class ChunkScene:
    """Chunks behind cached tokens, in blocks that lie anywhere; behind each context there are numbers that no
    row may see."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        heads: Heads,
        head_dim: int,
        sizes: Sequence[tuple[int, int]],
    ) -> None:
        """``heads``: of a rank. ``sizes``: tokens that are cached, and rows, of each chunk."""
        random = torch.Generator().manual_seed(0)
        contexts = tuple(cached + rows for cached, rows in sizes)
        counts = tuple(rows for _, rows in sizes)
        pages = [blocks_for(context) for context in contexts]
        shape = (sum(pages), BLOCK_SIZE, heads.kv, head_dim)
        self.keys, self.values = (torch.randn(shape, generator=random).to(device, dtype) for _ in "kv")
        q = torch.randn(sum(counts), heads.queries, head_dim, generator=random) * QUERY_SIZE
        self.q = q.to(device, dtype)
        self.chunks = Chunks(
            blocks=torch.randperm(sum(pages), generator=random).to(device),
            starts=torch.tensor([0, *accumulate(pages)][:-1], device=device),
            firsts=torch.tensor([0, *accumulate(counts)], device=device),
            positions=torch.cat([torch.arange(cached, cached + rows) for cached, rows in sizes]).to(device),
            counts=counts,
            contexts=contexts,
        )
        self._pages = pages

    def step(self, attention: ChunkAttention, layers: int = 1) -> Tensor:
        """As a step calls it, whose layers are all alike; NaN where it leaves something out."""
        out = torch.full_like(self.q, torch.nan)
        attend = attention.of_step(self.chunks)
        for _ in range(layers):
            attend(self.q, self.keys, self.values, out)
        return out

    def expected(self) -> Tensor:
        """By torch's operations, in fp32."""
        chunks, found = self.chunks, []
        tables = chunks.blocks.split(self._pages)
        rows = self.q.float().split(chunks.counts), chunks.positions.split(chunks.counts)
        for q, positions, table, context in zip(*rows, tables, chunks.contexts, strict=True):
            keys, values = (
                x.index_select(0, table).flatten(0, 1)[:context].float().transpose(0, 1)
                for x in (self.keys, self.values)
            )
            seen = torch.arange(context, device=q.device) <= positions.unsqueeze(1)
            heads = F.scaled_dot_product_attention(
                q.transpose(0, 1), keys, values, attn_mask=seen, enable_gqa=True
            )
            found.append(heads.transpose(0, 1))
        return torch.cat(found)
