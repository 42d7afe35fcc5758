"""Linear layers, whole and cut over a tensor-parallel group.

On CPUs, bf16 weights are packed once as the fastest product that is there wants them: that of the native
kernels, or oneDNN's; `F.linear` would read them in plain layout each time. Elsewhere they stay plain.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from worker_svc.buffers.scratch import ScratchBuffer
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels.native import NativeKernels
from worker_svc.kernels.native_weights import Int8Weight, PackedWeight
from worker_svc.kernels.quantized import QuantizedWeight
from worker_svc.kernels.scaled_products import ScaledWeight


class Linear:
    """``x W^T + b`` with ``W`` of ``[out, in]``."""

    def __init__(
        self,
        weight: Tensor | QuantizedWeight,
        bias: Tensor | None = None,
        native: NativeKernels | None = None,
    ) -> None:
        """``native``: kernels for tensors like ``weight``, where there are any."""
        self.outputs = len(weight) if isinstance(weight, Tensor) else weight.outputs
        self.bias = bias
        self.native = _native_weight(weight, native)
        """The weight as the native kernels have it, where they multiply."""
        self._multiply = _product(weight if self.native is None else self.native, bias, native)

    def __call__(self, x: Tensor) -> Tensor:
        return self._multiply(x)


class Head:
    """The product with the vocabulary, without a bias."""

    def __init__(self, weight: Tensor | QuantizedWeight, native: NativeKernels | None = None) -> None:
        self._linear = Linear(weight, native=native)
        self._native = native
        self._scratch = ScratchBuffer()
        self.outputs = self._linear.outputs

    def __call__(self, x: Tensor) -> Tensor:
        """``[n, outputs]``, good until the next call: in fp32 by the native kernels, whose sums need not be
        rounded for what is computed in fp32 from here on; else in the dtype of ``x``."""
        weight = self._linear.native
        if weight is None or self._native is None:
            return self._linear(x)
        wide = self._scratch.take((len(x), self.outputs), x, torch.float32)
        return self._native.matmul(x, weight, None, wide)


class RowParallelLinear:
    """A linear layer cut along its inputs: each rank's product is a part of the sum."""

    def __init__(
        self,
        weight: Tensor | QuantizedWeight,
        bias: Tensor | None,
        group: TPGroup,
        native: NativeKernels | None = None,
    ) -> None:
        """``bias`` is added once: by rank 0."""
        self.part = Linear(weight, bias if group.rank == 0 else None, native)
        """This rank's part of the sum."""
        self._group = group

    def __call__(self, x: Tensor) -> Tensor:
        return self.sum(self.part(x))

    def sum(self, part: Tensor) -> Tensor:
        """Over all ranks, which call it with parts of one shape."""
        return self._group.all_reduce(part)


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


def _native_weight(
    weight: Tensor | QuantizedWeight, native: NativeKernels | None
) -> PackedWeight | Int8Weight | None:
    if not isinstance(weight, Tensor):
        return weight if isinstance(weight, Int8Weight) else None
    return PackedWeight(weight) if native is not None and native.multiplies(weight) else None


def _product(
    weight: Tensor | PackedWeight | QuantizedWeight, bias: Tensor | None, native: NativeKernels | None
) -> Callable[[Tensor], Tensor]:
    if isinstance(weight, ScaledWeight):
        return lambda x: weight.multiply(x, bias)
    if not isinstance(weight, Tensor):
        if native is None:
            raise ValueError("packed weights take the native kernels")
        return lambda x: native.matmul(x, weight, bias)
    if _can_reorder(weight):
        blocked = torch.ops.mkldnn._reorder_linear_weight(weight)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, blocked, bias, "none", [], "")
    return lambda x: F.linear(x, weight, bias)


def _can_reorder(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
