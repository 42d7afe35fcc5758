"""Paged attention by torch's scaled_dot_product_attention, on gathered blocks: it runs everywhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE
from worker_svc.model.attention import RowGroup
from worker_svc.model.kv_cache import LayerCache


class SdpaAttention:
    """See :class:`worker_svc.model.attention.PagedAttention`."""

    name = "attention by torch"
    masked = True
    ragged = False

    def __init__(self) -> None:
        # cuDNN's attention, torch's first choice on Hopper, builds a plan for every new shape, which takes
        # the host tens of milliseconds; here the shape changes with the contexts.
        torch.backends.cuda.enable_cudnn_sdp(False)
        # One gather buffer for all layers: fresh ones of this size would cost a page fault each page. On the
        # CPU only: torch keeps CUDA memory, and a graph must not refer to a buffer that may be replaced.
        self._keys = torch.empty(0)
        self._values = torch.empty(0)

    def decodes(self, q: Tensor, cache: LayerCache, group: RowGroup, out: Tensor) -> None:
        """The query heads that share a KV head become the query positions of one head, so grouped-query
        attention copies no keys or values."""
        rows, heads, head_dim = q.shape
        kv_heads = cache.keys.shape[2]
        keys, values = self._gather(cache, group.blocks.flatten(), rows)
        folded = q.reshape(rows, kv_heads, heads // kv_heads, head_dim)
        found = F.scaled_dot_product_attention(folded, keys, values, attn_mask=group.mask)
        out.copy_(found.reshape(rows, heads, head_dim))

    def chunk(self, q: Tensor, cache: LayerCache, group: RowGroup, out: Tensor) -> None:
        keys, values = self._gather(cache, group.blocks, 1)
        found = F.scaled_dot_product_attention(
            q.transpose(0, 1).unsqueeze(0), keys, values, attn_mask=group.mask, enable_gqa=True
        )
        out.copy_(found[0].transpose(0, 1))

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
