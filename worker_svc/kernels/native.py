"""The kernels in C++, for CPUs: compiled when the package is installed, where there is a compiler.

Each is one pass over its rows where torch's operations take several. Rows attend to the blocks of the cache
where they are, and products have packed weights, which they fetch ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from worker_svc.kernels.interface import Heads, Norm
from worker_svc.kernels.library import SUFFIXES, NativeLibrary
from worker_svc.kernels.native_weights import PANEL, Int8Weight, PackedWeight

LANES = 16
"""Every dimension must be a multiple of it."""
MOST_DIM = 256
"""Largest head."""

SHORT = 1 << 17
"""Numbers that a kernel of rows is done with in some 50 microseconds."""


class _OfRows:
    """A function of rows, which may be few or many."""

    def __init__(self, library: NativeLibrary, name: str, dtype: torch.dtype) -> None:
        self._short = library.function(name, dtype, keeps_interpreter=True)
        self._long = library.function(name, dtype)

    def of(self, x: Tensor) -> Any:
        return self._short if x.numel() <= SHORT else self._long


class NativeKernels:
    """See :class:`worker_svc.kernels.interface.Kernels`. All tensors are contiguous, of one dtype.

    Of a cache in 8 bits, rows are as :mod:`worker_svc.model.kv_cache` has them.
    """

    def __init__(self, library: NativeLibrary, dtype: torch.dtype, *, int8_kv: bool = False) -> None:
        """``int8_kv``: the cache is in 8 bits."""
        kv = "_int8" if int8_kv else ""
        self._norm, self._gate, self._rotate = (
            _OfRows(library, name, dtype) for name in ("norm", "gate", f"rotate{kv}")
        )
        self._attention, self._matmul, self._matmul_int8, self.layers = (
            library.function(name, dtype)
            for name in (f"attention{kv}", "matmul", "matmul_int8", f"layers{kv}")
        )
        self._matmul_wide, self._matmul_int8_wide = (
            library.function(name, dtype) for name in ("matmul_wide", "matmul_int8_wide")
        )

    def norm(self, x: Tensor, norm: Norm, added: Tensor | None = None) -> Tensor:
        out = torch.empty_like(x)
        width = x.shape[-1]
        self._norm.of(x)(
            x.data_ptr(),
            None if added is None else added.data_ptr(),
            norm.weight.data_ptr(),
            out.data_ptr(),
            x.numel() // width,
            width,
            norm.eps,
        )
        return out

    def gate(self, gate_up: Tensor) -> Tensor:
        rows, width = gate_up.shape
        out = gate_up.new_empty(rows, width // 2)
        self._gate.of(gate_up)(gate_up.data_ptr(), out.data_ptr(), rows, width // 2)
        return out

    def rotate(
        self,
        qkv: Tensor,
        heads: Heads,
        rope: tuple[Tensor, Tensor],
        keys: Tensor,
        values: Tensor,
        kv_rows: Tensor,
    ) -> Tensor:
        rows = len(qkv)
        dim = qkv.shape[1] // (heads.queries + 2 * heads.kv)
        q = qkv.new_empty(rows, heads.queries, dim)
        self._rotate.of(qkv)(
            qkv.data_ptr(),
            rope[0].data_ptr(),
            rope[1].data_ptr(),
            heads.q_norm.weight.data_ptr() if heads.q_norm is not None else None,
            heads.k_norm.weight.data_ptr() if heads.k_norm is not None else None,
            heads.q_norm.eps if heads.q_norm is not None else 0.0,
            kv_rows.data_ptr(),
            q.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
            rows,
            heads.queries,
            heads.kv,
            dim,
        )
        return q

    def attention(
        self, q: Tensor, keys: Tensor, values: Tensor, blocks: Tensor, positions: Tensor, out: Tensor
    ) -> None:
        """Of rows ``q`` ``[n, heads, head_dim]`` into ``out``, of the same shape.

        Row i sees the tokens up to ``positions[i]``, its own included. ``blocks``: of their context, ``[n,
        most]`` for rows of as many requests, ``[blocks]`` for those of one.
        """
        rows, queries, dim = q.shape
        self._attention(
            q.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
            blocks.data_ptr(),
            blocks.shape[1] if blocks.ndim == 2 else 0,
            positions.data_ptr(),
            out.data_ptr(),
            rows,
            queries,
            keys.shape[2],
            dim,
        )

    def multiplies(self, weight: Tensor) -> bool:
        """Whether :meth:`matmul` takes this one ``[outputs, inputs]``, once it is packed, and is the fastest
        product here: where there are tile registers (AMX), oneDNN uses them."""
        whole = weight.shape[0] % PANEL == 0 and weight.shape[1] % 2 == 0
        return self._matmul is not None and whole and not torch.cpu._is_amx_tile_supported()

    def matmul(
        self,
        x: Tensor,
        weight: PackedWeight | Int8Weight,
        bias: Tensor | None,
        wide: Tensor | None = None,
    ) -> Tensor:
        """``x W^T + b`` of ``x`` ``[n, inputs]``. Where the weight is in 8 bits, rows are quantized on the
        fly. ``wide``: fp32 ``[n, outputs]``, where sums go that are not to be rounded to the dtype."""
        if isinstance(weight, Int8Weight):
            return self._multiply_int8(x, weight, bias, wide)
        out = x.new_empty(len(x), weight.outputs) if wide is None else wide
        multiply = self._matmul if wide is None else self._matmul_wide
        multiply(
            x.data_ptr(),
            weight.packed.data_ptr(),
            None if bias is None else bias.data_ptr(),
            out.data_ptr(),
            len(x),
            weight.outputs,
            weight.inputs,
        )
        return out

    @property
    def has_int8(self) -> bool:
        """Whether this CPU has products of bytes."""
        return self._matmul_int8 is not None

    def multiplies_int8(self, outputs: int, inputs: int) -> bool:
        """Whether :meth:`matmul` takes weights in 8 bits of this shape."""
        return self._matmul_int8 is not None and outputs % PANEL == 0 and inputs % LANES == 0

    def _multiply_int8(
        self, x: Tensor, weight: Int8Weight, bias: Tensor | None, wide: Tensor | None
    ) -> Tensor:
        rows = len(x)
        out = x.new_empty(rows, weight.outputs) if wide is None else wide
        multiply = self._matmul_int8 if wide is None else self._matmul_int8_wide
        quantized = torch.empty(rows, weight.inputs, dtype=torch.uint8)
        scales = torch.empty(rows)
        multiply(
            x.data_ptr(),
            weight.packed.data_ptr(),
            weight.scales.data_ptr(),
            weight.offsets.data_ptr(),
            None if bias is None else bias.data_ptr(),
            out.data_ptr(),
            quantized.data_ptr(),
            scales.data_ptr(),
            rows,
            weight.outputs,
            weight.inputs,
            weight.part,
        )
        return out


class NativeInt8Products:
    """See :class:`worker_svc.kernels.quantized.QuantizedProducts`. Of kernels that have products of bytes."""

    dtype = torch.int8

    def __init__(self, kernels: NativeKernels) -> None:
        self._kernels = kernels

    def takes(self, outputs: int, inputs: int) -> bool:
        return self._kernels.multiplies_int8(outputs, inputs)

    def weight(self, numbers: Tensor, scales: Tensor) -> Int8Weight:
        return Int8Weight(numbers, scales)

    def nearest(self, weight: Tensor) -> Int8Weight:
        return Int8Weight.of(weight)


def fits(dtype: torch.dtype, widths: Sequence[int], head_dim: int) -> bool:
    """Whether the kernels take a model with rows of these ``widths`` on a rank."""
    whole = all(width % LANES == 0 for width in (*widths, head_dim))
    return dtype in SUFFIXES and whole and head_dim <= MOST_DIM
