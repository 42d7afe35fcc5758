"""Compiles the launches of a layer for a kind of GPU, which need not be there, and prints what they take.

``python -m tests.worker_svc.kernels.compiled GPU DTYPE HEADS KV_HEADS HEAD_DIM``, where TRITON_INTERPRET is
not set: a line for each kernel, with its name, registers of a thread, bytes of spilled registers, and bytes
of shared memory. ``GPU``: its compute capability, as 90.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from albireo.contract.plan import BLOCK_SIZE
from worker_svc.kernels import triton_kernels, triton_rounding
from worker_svc.kernels.interface import Heads, Norm
from worker_svc.kernels.rounding import part_of

KERNELS = "norm_row gate_tile rotate_head attend_part merge_parts attend_chunk".split()
ROUNDING = "round_row scale_tile".split()
FP8_GPU = 89
"""The first with FP8."""
MULTIPROCESSORS = 132
SHARED_BYTES = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10}
"""That a program may have, by compute capability."""
POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int8: "*i8",
    torch.float8_e4m3fn: "*fp8e4nv",
}


class Recorder:
    """In the place of a kernel: compiles it for the arguments of a launch."""

    def __init__(self, kernel: Any, gpu: int) -> None:
        self._kernel, self._gpu = kernel, gpu

    def __getitem__(self, grid: object) -> Recorder:
        return self

    def __call__(self, *args: Any, **options: Any) -> None:
        kernel, signature, aligned = self._kernel, dict[str, str](), dict[tuple[int, ...], Any]()
        constants = {name: options.pop(name) for name in kernel.arg_names if name in options}
        for number, (name, parameter) in enumerate(zip(kernel.arg_names, kernel.params, strict=True)):
            if name in constants:
                signature[name] = "constexpr"
                continue
            signature[name] = _type_of(args[number])
            if isinstance(args[number], Tensor) and not parameter.do_not_specialize_on_alignment:
                aligned[(number,)] = [["tt.divisibility", 16]]
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
        found = triton.compile(source, target=GPUTarget("cuda", self._gpu, 32), options=options)
        registers, spilled = _resources(found.asm["cubin"])
        print(kernel.__name__, registers, spilled, found.metadata.shared, flush=True)
        if found.metadata.shared > SHARED_BYTES[self._gpu]:
            sys.exit(f"{kernel.__name__}: {found.metadata.shared} bytes of shared memory")


def _type_of(argument: Any) -> str:
    if isinstance(argument, Tensor):
        return POINTERS[argument.dtype]
    return "fp32" if isinstance(argument, float) else "i32"


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack, which holds nothing but what is spilled."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        shown = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    [line] = [line for line in shown.stdout.splitlines() if "REG:" in line]
    numbers = dict(word.split(":", 1) for word in line.split())
    return int(numbers["REG"]), int(numbers["STACK"])


def main(gpu: int, dtype: str, heads: int, kv: int, dim: int) -> None:
    kind = getattr(torch, dtype)
    for name in KERNELS:
        setattr(triton_kernels, name, Recorder(getattr(triton_kernels, name), gpu))
    for name in ROUNDING:
        setattr(triton_rounding, name, Recorder(getattr(triton_rounding, name), gpu))
    kernels = triton_kernels.TritonKernels(MULTIPROCESSORS, SHARED_BYTES[gpu])
    rows, width = 64, heads * dim
    x, norm = torch.zeros(rows, width, dtype=kind), Norm(torch.zeros(dim, dtype=kind), 1e-6)
    kernels.norm(x, Norm(x[0], 1e-6), x)
    kernels.gate(x)
    qkv = torch.zeros(rows, (heads + 2 * kv) * dim, dtype=kind)
    rope = torch.zeros(rows, 1, dim // 2, dtype=kind)
    keys = torch.zeros(1, BLOCK_SIZE, kv, dim, dtype=kind)
    numbers = torch.zeros(rows, dtype=torch.int64)
    q = kernels.rotate(qkv, Heads(heads, kv, norm, norm), (rope, rope), keys, keys, numbers)
    kernels.decode(q, keys, keys, numbers, numbers, numbers, q)
    kernels.chunks(q, keys, keys, numbers, numbers, numbers, numbers, q)
    scales = torch.zeros(1, width)
    kernels.rounding.scaled(torch.zeros(rows, width, dtype=torch.int32), scales, scales, x[0], kind)
    kernels.rounding.rounded(x, torch.int8, torch.zeros(part_of(width), part_of(width)))
    if gpu >= FP8_GPU:
        kernels.rounding.rounded(x, torch.float8_e4m3fn)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
