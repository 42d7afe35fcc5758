"""Linear layers, whole and cut over a tensor-parallel group.

On CPUs with oneDNN, bf16 weights are reordered once into the blocked layout that its matrix multiply
wants; `F.linear` would read them in plain layout each time. Everywhere else, plain layout it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from worker_svc.collectives.tp_group import TPGroup


class Linear:
    """``x W^T + b`` with ``W`` of ``[out, in]``."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._packed = _can_pack(weight)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self._packed else weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
            return y
        return F.linear(x, self._weight, self._bias)


class RowParallelLinear:
    """A linear layer cut along its inputs: each rank's product is a part of the sum."""

    def __init__(self, weight: Tensor, bias: Tensor | None, group: TPGroup) -> None:
        """``bias`` is added once: by rank 0."""
        self._part = Linear(weight, bias if group.rank == 0 else None)
        self._group = group

    def __call__(self, x: Tensor) -> Tensor:
        return self._group.all_reduce(self._part(x))


class VocabParallelEmbedding:
    """A table cut along the vocabulary: a rank looks up what it holds, the sum is the embedding."""

    def __init__(self, weight: Tensor, group: TPGroup) -> None:
        """``weight``: this rank's rows ``[padded vocabulary / size, hidden]``."""
        self._weight = weight
        self._group = group
        self._first = group.rank * len(weight)

    def __call__(self, ids: Tensor) -> Tensor:
        if self._group.size == 1:
            return F.embedding(ids, self._weight)
        local = ids - self._first
        elsewhere = (local < 0) | (local >= len(self._weight))
        found = F.embedding(local.masked_fill_(elsewhere, 0), self._weight)
        return self._group.all_reduce(found.masked_fill_(elsewhere[:, None], 0))


def _can_pack(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
