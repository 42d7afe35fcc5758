"""The kernels in C++, for CPUs: compiled when the package is installed, where there is a compiler.

Each is one pass over its rows where torch's operations take several, and decoding rows attend to the blocks
of the cache where they are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from worker_svc.kernels.interface import Heads, Norm

GENERAL = "_native"
"""For CPUs of other kinds than x86-64."""
SUFFIXES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
LANES = 16
"""Every dimension must be a multiple of it."""
PANEL = 32
"""Outputs of a product must be a multiple of it."""
MOST_DIM = 256
"""Largest head."""

_POINTER, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SHORT: dict[str, list[Any]] = {
    "norm": [_POINTER] * 4 + [_COUNT] * 2 + [_NUMBER],
    "gate": [_POINTER] * 2 + [_COUNT] * 2,
    "rotate": [_POINTER] * 5 + [_NUMBER] + [_POINTER] * 4 + [_COUNT] * 4,
}
"""Parameters of functions so short that the interpreter stays with the thread: another one that took it
meanwhile would keep it for longer."""
_LONG: dict[str, list[Any]] = {
    "matmul": [_POINTER] * 4 + [_COUNT] * 3,
    "attention": [_POINTER] * 4 + [_COUNT] + [_POINTER] * 2 + [_COUNT] * 4,
}


def builds() -> list[str]:
    """Names of the libraries that this CPU runs, the fastest first."""
    capability = torch.backends.cpu.get_cpu_capability()
    found = []
    if capability == "AVX512" and torch.cpu._is_avx512_bf16_supported():
        found.append("_native_v4_bf16")
    if capability == "AVX512":
        found.append("_native_v4")
    if capability in ("AVX512", "AVX2"):
        found.append("_native_v3")
    return [*found, GENERAL]


def locate(build: str) -> str | None:
    """The path of a library; None where it was not compiled."""
    spec = find_spec(f"worker_svc.kernels.{build}")
    return None if spec is None else spec.origin


@cache
def load() -> NativeLibrary | None:
    """The library for this CPU; None where it was not compiled."""
    libraries = (NativeLibrary(path) for build in builds() if (path := locate(build)))
    return next((library for library in libraries if library.function("norm", torch.float32)), None)


class NativeLibrary:
    """The functions of one build."""

    def __init__(self, path: str) -> None:
        self._short, self._long = ctypes.PyDLL(path), ctypes.CDLL(path)

    def function(self, name: str, dtype: torch.dtype) -> Any:
        """None where this build has it not."""
        library, arguments = (self._short, _SHORT) if name in _SHORT else (self._long, _LONG)
        try:
            function = getattr(library, f"{name}_{SUFFIXES[dtype]}")
        except AttributeError:
            return None
        function.argtypes, function.restype = arguments[name], None
        return function


class NativeKernels:
    """See :class:`worker_svc.kernels.interface.Kernels`. All tensors are contiguous, of one dtype."""

    def __init__(self, library: NativeLibrary, dtype: torch.dtype) -> None:
        self._norm, self._gate, self._rotate, self._attention, self._matmul = (
            library.function(name, dtype) for name in ("norm", "gate", "rotate", "attention", "matmul")
        )

    def norm(self, x: Tensor, norm: Norm, added: Tensor | None = None) -> Tensor:
        out = torch.empty_like(x)
        width = x.shape[-1]
        self._norm(
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
        self._gate(gate_up.data_ptr(), out.data_ptr(), rows, width // 2)
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
        self._rotate(
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


def fits(dtype: torch.dtype, widths: Sequence[int], head_dim: int) -> bool:
    """Whether the kernels take a model with rows of these ``widths`` on a rank."""
    whole = all(width % LANES == 0 for width in (*widths, head_dim))
    return dtype in SUFFIXES and whole and head_dim <= MOST_DIM


def pack(weight: Tensor) -> Tensor:
    """A weight as :meth:`NativeKernels.matmul` takes it: ``[outputs / 32, inputs / 2, 32, 2]``."""
    outputs, inputs = weight.shape
    return weight.view(outputs // PANEL, PANEL, inputs // 2, 2).transpose(1, 2).contiguous()
