"""Inputs of Triton's kernels, on the CPU or a GPU, and what they must bring, in fp64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from tests.worker_svc.ragged import attend
from worker_svc.kernels.interface import Heads, Norm
from worker_svc.kernels.plain import PlainKernels
from worker_svc.kernels.rounding import LARGEST, hadamard

LAST = {torch.float32: 2e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
"""Of a number, what its rounding may be off, in Triton's interpreter too."""


class TritonScene:
    """``kernels``: TritonKernels. Tensors go to the device that these are for."""

    def __init__(self, kernels: Any, device: torch.device | str = "cpu") -> None:
        self.kernels, self.device = kernels, torch.device(device)
        self._plain = PlainKernels()
        self._random = torch.Generator().manual_seed(0)

    def numbers(self, *shape: int, dtype: torch.dtype = torch.float32, size: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=self._random) * size).to(self.device, dtype)

    def assert_near(self, found: Tensor, exact: Tensor, ulps: int = 1) -> None:
        last = LAST[found.dtype] * ulps
        torch.testing.assert_close(found.double(), exact.double(), rtol=last, atol=last)

    def check_norm(self, dtype: torch.dtype, rows: int, width: int, *, adds: bool) -> None:
        x, weight = self.numbers(rows, width, dtype=dtype), self.numbers(width, dtype=dtype)
        added = self.numbers(rows, width, dtype=dtype) if adds else None
        whole = x if added is None else x + added
        own = x.clone()
        found = self.kernels.norm(own, Norm(weight, 1e-6), added)
        if dtype != torch.bfloat16 or not adds or self.device.type == "cuda":
            assert torch.equal(own, whole)  # rounded as by torch
        self.assert_near(own, whole)
        self.assert_near(found, self._plain.norm(own.double(), Norm(weight.double(), 1e-6)), 4)

    def check_gate(self, dtype: torch.dtype, rows: int, units: int) -> None:
        gate_up = self.numbers(rows, 2 * units, dtype=dtype, size=8.0)
        self.assert_near(self.kernels.gate(gate_up), self._plain.gate(gate_up.double()))

    def check_rotate(
        self, dtype: torch.dtype, rows: int, heads: tuple[int, int], dim: int, *, normed: bool
    ) -> None:
        queries, kv = heads
        weights = [self.numbers(dim, dtype=dtype) for _ in "qk"]
        qkv = self.numbers(rows, (queries + 2 * kv) * dim, dtype=dtype)
        angles = self.numbers(rows, 1, dim // 2, size=9.0)
        rope = angles.cos().to(dtype), angles.sin().to(dtype)
        kv_rows = torch.randperm(4 * BLOCK_SIZE, generator=self._random)[:rows].to(self.device)

        def run(kernels: Any, kind: torch.dtype) -> list[Tensor]:
            cache = [torch.zeros(4, BLOCK_SIZE, kv, dim, dtype=kind, device=self.device) for _ in "kv"]
            norms = [Norm(weight.to(kind), 1e-6) if normed else None for weight in weights]
            turned = rope[0].to(kind), rope[1].to(kind)
            return [kernels.rotate(qkv.to(kind), Heads(queries, kv, *norms), turned, *cache, kv_rows), *cache]

        for found, exact in zip(run(self.kernels, dtype), run(self._plain, torch.float64), strict=True):
            self.assert_near(found, exact, 4)

    def cache(
        self, lengths: Sequence[int], kv: int, dim: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Keys and values of contexts in blocks anywhere, NaN behind them; their block tables one behind the
        other, and where each begins."""
        counts = [blocks_for(length) for length in lengths]
        order = torch.randperm(sum(counts), generator=self._random) + 1
        caches = []
        for _ in "kv":
            cache = torch.full((len(order) + 1, BLOCK_SIZE, kv, dim), torch.nan)
            for table, length in zip(order.split(counts), lengths, strict=True):
                own = torch.full((len(table) * BLOCK_SIZE, kv, dim), torch.nan)
                own[:length] = torch.randn(length, kv, dim, generator=self._random)
                cache[table] = own.view(len(table), BLOCK_SIZE, kv, dim)
            caches.append(cache.to(self.device, dtype))
        starts = torch.tensor(counts).cumsum(0) - torch.tensor(counts)
        return caches[0], caches[1], order.to(self.device), starts.to(self.device)

    def check_decode(
        self, dtype: torch.dtype, lengths: Sequence[int], heads: tuple[int, int], dim: int
    ) -> None:
        keys, values, blocks, starts = self.cache(lengths, heads[1], dim, dtype)
        q = self.numbers(len(lengths), heads[0], dim, dtype=dtype, size=3.0)
        positions = torch.tensor(lengths, device=self.device) - 1
        out = torch.full_like(q, torch.nan)
        self.kernels.decode(q, keys, values, blocks, starts, positions, out)
        self.assert_near(out, attend(q.double(), keys, values, blocks, starts, positions), 4)

    def check_chunks(
        self, dtype: torch.dtype, chunks: Sequence[tuple[int, int]], heads: tuple[int, int], dim: int
    ) -> None:
        """``chunks``: the first position and the rows of each, with which its context ends."""
        lengths = [start + rows for start, rows in chunks]
        keys, values, blocks, starts = self.cache(lengths, heads[1], dim, dtype)
        counts = torch.tensor([rows for _, rows in chunks])
        firsts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]).to(self.device)
        positions = torch.cat([torch.arange(start, start + rows) for start, rows in chunks]).to(self.device)
        q = self.numbers(len(positions), heads[0], dim, dtype=dtype, size=3.0)
        out = torch.full_like(q, torch.nan)
        self.kernels.chunks(q, keys, values, blocks, starts, firsts, positions, out)
        own = starts.repeat_interleave(counts.to(self.device))
        self.assert_near(out, attend(q.double(), keys, values, blocks, own, positions), 4)

    def check_rounded(self, dtype: torch.dtype, kind: torch.dtype, rows: int, width: int, part: int) -> None:
        """``part``: inputs that are rotated together, 0 for none."""
        x = self.numbers(rows, width, dtype=dtype, size=3.0)
        rotation = hadamard(part).to(self.device) if part else None
        numbers, scales = self.kernels.rounding.rounded(x, kind, rotation, 8)
        assert numbers.shape == (-(-rows // 8) * 8, width)
        exact = x.double() if rotation is None else _turned(x.double(), rotation.double())
        largest = exact.abs().amax(1, keepdim=True)
        torch.testing.assert_close(scales.double() * LARGEST[kind], largest, rtol=1e-6, atol=0.0)
        steps = exact / scales
        # Of E4M3 a step is an eighth of the power of two below, and at least 2^-9.
        step = torch.ones_like(steps) if kind == torch.int8 else steps.abs().log2().floor().exp2() / 8
        error = (numbers[:rows].double() - steps).abs()
        assert bool((error <= step.clamp(min=2**-9) * 0.5001).all())

    def check_scaled(self, dtype: torch.dtype, rows: int, outputs: int, *, adds: bool) -> None:
        sums = (self.numbers(rows + 3, outputs) * 1e6).to(torch.int32)
        row_scales, scales = self.numbers(rows, 1) * 1e-3, self.numbers(1, outputs) * 1e-3
        bias = self.numbers(outputs, dtype=dtype) if adds else None
        found = self.kernels.rounding.scaled(sums, row_scales, scales, bias, dtype)
        exact = sums[:rows].double() * row_scales.double() * scales.double()
        self.assert_near(found, exact if bias is None else exact + bias.double(), 2)


def _turned(x: Tensor, rotation: Tensor) -> Tensor:
    turned: Tensor = x.unflatten(1, (-1, len(rotation))) @ rotation
    return turned.flatten(1)
