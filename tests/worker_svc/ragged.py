"""Attention with ragged block tables by torch's operations, row by row, and kernels that have it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE
from worker_svc.kernels.plain import PlainKernels


def attend(
    q: Tensor, keys: Tensor, values: Tensor, blocks: Tensor, starts: Tensor, positions: Tensor
) -> Tensor:
    """See :class:`worker_svc.kernels.interface.RaggedAttention`. In the dtype of ``q``."""
    found = []
    for row, start, position in zip(q, starts.tolist(), positions.tolist(), strict=True):
        table = blocks[start : start + position // BLOCK_SIZE + 1]
        k, v = (x[table].flatten(0, 1)[: position + 1].to(q.dtype).transpose(0, 1) for x in (keys, values))
        found.append(F.scaled_dot_product_attention(row[:, None], k, v, enable_gqa=True)[:, 0])
    return torch.stack(found) if found else torch.empty_like(q)


def attend_chunk(q: Tensor, keys: Tensor, values: Tensor, table: Tensor, context: int) -> Tensor:
    """Of the last rows ``q`` of a context, of ``context`` tokens in the blocks of ``table``."""
    k, v = (x[table].flatten(0, 1)[:context].transpose(0, 1) for x in (keys, values))
    seen = torch.ones(len(q), context, dtype=torch.bool).tril(context - len(q))
    found = F.scaled_dot_product_attention(q.transpose(0, 1), k, v, attn_mask=seen, enable_gqa=True)
    return found.transpose(0, 1)


class RaggedKernels(PlainKernels):
    """For tensors on the CPU."""

    def decode(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        blocks: Tensor,
        starts: Tensor,
        positions: Tensor,
        out: Tensor,
    ) -> None:
        out.copy_(attend(q, keys, values, blocks, starts, positions))

    def chunks(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        blocks: Tensor,
        starts: Tensor,
        firsts: Tensor,
        positions: Tensor,
        out: Tensor,
    ) -> None:
        self.decode(q, keys, values, blocks, starts.repeat_interleave(firsts.diff()), positions, out)
