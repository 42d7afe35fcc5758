"""Kernels of Triton in its interpreter, on the CPU: NumPy runs one program after the other.

It computes in fp32 what a GPU does, apart from bf16: it cuts off where a GPU rounds. Numbers are rounded to
FP8 by torch: the interpreter loses carries, and cuts off small ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

MULTIPROCESSORS = 2
"""So that contexts are attended to in parts, but not in many."""
SHARED_BYTES = 227 << 10


@contextmanager
def interpreted_kernels() -> Iterator[Any]:
    """TritonKernels. Skips the test where Triton is not installed, or is there for a GPU."""
    pytest.importorskip("triton")
    if not os.environ.get("TRITON_INTERPRET"):
        pytest.skip("Triton was imported for a GPU: see tests/worker_svc/cuda/test_gpu_kernels.py")
    from triton.runtime import interpreter
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from worker_svc.kernels.triton_kernels import TritonKernels

    multiply, convert = InterpreterBuilder.create_dot, interpreter._convert_float

    def widened(handle: Any) -> Any:
        import triton.language as tl

        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        """The interpreter holds bf16 numbers as integers, and multiplies these."""
        return multiply(self, widened(a), widened(b), *others)

    def convert_float(numbers: Any, kind: Any, wanted: Any, rounding: Any) -> Any:
        import triton.language as tl

        if (kind, wanted) != (tl.float32, tl.float8e4nv):
            return convert(numbers, kind, wanted, rounding)
        return torch.from_numpy(numbers).to(torch.float8_e4m3fn).view(torch.uint8).numpy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "create_dot", create_dot)
        patch.setattr(interpreter, "_convert_float", convert_float)
        yield TritonKernels(MULTIPROCESSORS, SHARED_BYTES)
