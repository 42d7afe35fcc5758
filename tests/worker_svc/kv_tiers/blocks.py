"""Blocks and keys for tests of tiers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout

LAYOUT = KvLayout(3, 2, 4, torch.bfloat16, "c" * 32, tp=1, rank=0)
FRAMES = 20


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def blocks(*numbers: int, layout: KvLayout = LAYOUT) -> Tensor:
    """Random blocks, the same for the same numbers."""
    made = torch.empty((len(numbers), layout.block_bytes), dtype=torch.uint8)
    for row, number in zip(made, numbers, strict=True):
        row.random_(0, 256, generator=torch.Generator().manual_seed(number))
    return made.view(layout.dtype).view(-1, *layout.block_shape)


def read(tier: Tier, frames: list[int], numbers: list[int], layers: range | None = None) -> Tensor:
    """What a tier returns for blocks of these numbers, all of which it must have."""
    layers = range(LAYOUT.layers) if layers is None else layers
    out = torch.empty((len(frames), len(layers), *LAYOUT.part_shape), dtype=LAYOUT.dtype)
    assert tier.read(frames, [key(number) for number in numbers], layers, out) == []
    return out


def missing(tier: Tier, frames: list[int], numbers: list[int], layers: range | None = None) -> list[int]:
    """Positions that a tier cannot read; what it can is right."""
    layers = range(LAYOUT.layers) if layers is None else layers
    out = torch.empty((len(frames), len(layers), *LAYOUT.part_shape), dtype=LAYOUT.dtype)
    failed = tier.read(frames, [key(number) for number in numbers], layers, out)
    good = [i for i in range(len(frames)) if i not in failed]
    expected = blocks(*(numbers[i] for i in good))[:, layers.start : layers.stop]
    assert same(out[good], expected)
    return failed


def write(tier: Tier, frames: list[int], numbers: list[int]) -> list[int]:
    return tier.write(frames, [key(number) for number in numbers], blocks(*numbers))


def same(a: Tensor, b: Tensor) -> bool:
    """Bit by bit: random bytes may be NaN."""
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def flip(path: Path, byte: int, bit: int = 0) -> None:
    """Turns one bit of a file over."""
    with path.open("r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ 1 << bit]))
