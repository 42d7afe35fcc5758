"""FlashAttention's kernel for tensors on the CPU: behind torch's own operator, by torch's operations.

It computes with exactly what it is given, and checks what FlashAttention 3 checks of that (`flash_api.cpp`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from tests.worker_svc.ragged import attend_chunk

PACKAGE = "flash_attn_interface"
OPERATOR = "_flash_attention_forward_no_dropout_inplace"


@contextmanager
def flash_kernel() -> Iterator[None]:
    """As torch's module for FlashAttention 3 registers its own, for CUDA."""
    library = Library("aten", "IMPL")
    library.impl(OPERATOR, _forward, "CPU")
    try:
        yield
    finally:
        library._destroy()


@contextmanager
def flash_package() -> Iterator[None]:
    """The package that torch takes FlashAttention 3 from, without kernels in it."""
    library, module = Library("flash_attn_3", "DEF"), ModuleType(PACKAGE)
    for name in ("fwd", "bwd"):
        library.define(f"{name}(Tensor q) -> Tensor")
    module.__spec__ = ModuleSpec(PACKAGE, None)
    sys.modules[PACKAGE] = module
    try:
        yield
    finally:
        del sys.modules[PACKAGE]
        library._destroy()


def _forward(
    out: Tensor,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    firsts: Tensor,
    key_firsts: Tensor | None,
    most_rows: int,
    most_tokens: int,
    dropout: float,
    causal: bool,
    debug: bool,
    *,
    seqused_k: Tensor,
    block_table: Tensor,
    **options: Any,
) -> Tensor:
    given = {name: value for name, value in options.items() if value is not None}
    assert given == {"window_size_left": -1, "window_size_right": 0}
    assert (key_firsts, dropout, causal, debug) == (None, 0.0, True, False)
    for numbers in (firsts, seqused_k, block_table):
        assert numbers.dtype == torch.int32
        assert numbers.is_contiguous()
    chunks = len(firsts) - 1
    assert (len(seqused_k), len(block_table), int(firsts[-1])) == (chunks, chunks, len(q))
    assert most_rows == int(firsts.diff().max())
    assert most_tokens == block_table.shape[1] * keys.shape[1]
    assert out.shape == q.shape
    for first, end, length, table in zip(firsts, firsts[1:], seqused_k, block_table, strict=False):
        out[first:end] = attend_chunk(q[first:end], keys, values, table, int(length))
    return q.new_empty(q.shape[1], len(q), dtype=torch.float32)
