"""The kernels in C++, for CPUs: compiled when the package is installed, where there is a compiler.

Each is one pass over its rows where torch's operations take several. Rows attend to the blocks of the cache
where they are, and products have packed weights, which they fetch ahead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from worker_svc.kernels.interface import Heads, Norm
from worker_svc.kernels.library import SUFFIXES, NativeLibrary

LANES = 16
"""Every dimension must be a multiple of it."""
PANEL = 32
"""Outputs of a product must be a multiple of it."""
MOST_DIM = 256
"""Largest head."""
MOST_PART = 64
"""Inputs that are rotated together, at most."""
SLICE = 4096
"""Outputs that are quantized at a time."""

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
    """See :class:`worker_svc.kernels.interface.Kernels`. All tensors are contiguous, of one dtype."""

    def __init__(self, library: NativeLibrary, dtype: torch.dtype) -> None:
        self._norm, self._gate, self._rotate = (
            _OfRows(library, name, dtype) for name in ("norm", "gate", "rotate")
        )
        self._attention, self._matmul, self._matmul_int8 = (
            library.function(name, dtype) for name in ("attention", "matmul", "matmul_int8")
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
        rows, dim = len(qkv), keys.shape[-1]
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

    def matmul(self, x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
        """``x W^T + b`` of ``x`` ``[n, inputs]``. ``packed``: the weight as :func:`pack` has it."""
        rows, inputs = x.shape
        outputs = packed.numel() // inputs
        out = x.new_empty(rows, outputs)
        self._matmul(
            x.data_ptr(),
            packed.data_ptr(),
            None if bias is None else bias.data_ptr(),
            out.data_ptr(),
            rows,
            outputs,
            inputs,
        )
        return out

    @property
    def has_int8(self) -> bool:
        """Whether this CPU has products of bytes."""
        return self._matmul_int8 is not None

    def multiplies_int8(self, outputs: int, inputs: int) -> bool:
        """Whether :meth:`matmul_int8` takes weights of this shape."""
        return self._matmul_int8 is not None and outputs % PANEL == 0 and inputs % LANES == 0

    def matmul_int8(self, x: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
        """``x W^T + b`` of ``x`` ``[n, inputs]``, of which each row is quantized to 8 bits on the fly."""
        rows, inputs = x.shape
        outputs = len(weight)
        out = x.new_empty(rows, outputs)
        quantized = torch.empty(rows, inputs, dtype=torch.uint8)
        units = torch.empty(rows)
        self._matmul_int8(
            x.data_ptr(),
            weight.packed.data_ptr(),
            weight.scales.data_ptr(),
            weight.offsets.data_ptr(),
            None if bias is None else bias.data_ptr(),
            out.data_ptr(),
            quantized.data_ptr(),
            units.data_ptr(),
            rows,
            outputs,
            inputs,
            weight.part,
        )
        return out


def fits(dtype: torch.dtype, widths: Sequence[int], head_dim: int) -> bool:
    """Whether the kernels take a model with rows of these ``widths`` on a rank."""
    whole = all(width % LANES == 0 for width in (*widths, head_dim))
    return dtype in SUFFIXES and whole and head_dim <= MOST_DIM


def pack(weight: Tensor) -> Tensor:
    """A weight as :meth:`NativeKernels.matmul` takes it: ``[outputs / 32, inputs / 2, 32, 2]``."""
    outputs, inputs = weight.shape
    return weight.view(outputs // PANEL, PANEL, inputs // 2, 2).transpose(1, 2).contiguous()


class Int8Weight:
    """A weight in 8 bits, symmetric, with a scale for each output."""

    def __init__(self, quantized: Tensor, scales: Tensor, *, part: int = 0) -> None:
        """``quantized``: ``[outputs, inputs]`` int8; ``scales``: ``[outputs]``. ``part``: inputs of it that
        are rotated together, as those of rows will be; 0 for none."""
        outputs, inputs = quantized.shape
        self.part = part
        self.scales = scales.float().contiguous()
        # Rows come as unsigned bytes around 128.
        self.offsets = (quantized.sum(dim=1, dtype=torch.int32) * -128).contiguous()
        self.packed = quantized.view(outputs // PANEL, PANEL, inputs // 4, 4).transpose(1, 2).contiguous()

    def __len__(self) -> int:
        """Outputs."""
        return len(self.scales)

    @classmethod
    def of(cls, weight: Tensor) -> Int8Weight:
        """The nearest one to a weight ``[outputs, inputs]``, rotated.

        A few inputs of a row are often far larger than the others, which would be left with few steps of the
        row's scale. A rotation of rows and weight alike leaves the product as it is and spreads them (QuaRot,
        Ashkboos et al. 2024, arXiv 2404.00456; here by parts, on the fly).
        """
        outputs, inputs = weight.shape
        part = min(MOST_PART, inputs & -inputs)
        rotation = hadamard(part)
        quantized, scales = torch.empty(weight.shape, dtype=torch.int8), torch.empty(outputs)
        for rows, scale, some in zip(
            quantized.split(SLICE), scales.split(SLICE), weight.split(SLICE), strict=True
        ):
            turned = (some.float().unflatten(1, (-1, part)) @ rotation).flatten(1)
            scale.copy_(turned.abs().amax(dim=1).clamp(min=1e-30) / 127)
            rows.copy_((turned / scale[:, None]).round())
        return cls(quantized, scales, part=part)


def hadamard(size: int) -> Tensor:
    """The orthonormal matrix of a power of two by Sylvester's construction: fp32, its own inverse."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix / math.sqrt(size)
