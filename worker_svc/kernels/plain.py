"""The kernels by torch's own operations; they run everywhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from worker_svc.kernels.interface import Heads, Norm


class PlainKernels:
    """See :class:`worker_svc.kernels.interface.Kernels`."""

    def norm(self, x: Tensor, norm: Norm, added: Tensor | None = None) -> Tensor:
        if added is not None:
            x += added
        return F.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)

    def gate(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        found: Tensor = F.silu(gate) * up
        return found

    def rotate(
        self,
        qkv: Tensor,
        heads: Heads,
        rope: tuple[Tensor, Tensor],
        keys: Tensor,
        values: Tensor,
        kv_rows: Tensor,
    ) -> Tensor:
        q: Tensor
        parts = qkv.unflatten(1, (heads.queries + 2 * heads.kv, -1))
        if heads.q_norm is not None and heads.k_norm is not None:
            q, own_keys, own_values = parts.split([heads.queries, heads.kv, heads.kv], dim=1)
            q = rotate(self.norm(q, heads.q_norm), *rope)
            own_keys = rotate(self.norm(own_keys, heads.k_norm), *rope)
        else:
            both, own_values = parts.split([heads.queries + heads.kv, heads.kv], dim=1)
            q, own_keys = rotate(both, *rope).split([heads.queries, heads.kv], dim=1)
        keys.flatten(0, 1).index_copy_(0, kv_rows, own_keys)
        values.flatten(0, 1).index_copy_(0, kv_rows, own_values)
        return q


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates ``[n, heads, head_dim]``; the pairs are the two halves of a head, as in HF checkpoints."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
