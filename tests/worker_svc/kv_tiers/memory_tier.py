"""A KV tier in a dict, which can block, be slow, lose frames and fail writes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from worker_svc.kv_tiers.faults import Faults
from worker_svc.kv_tiers.interface import TierSpeed
from worker_svc.kv_tiers.layout import KvLayout

GATE_SECONDS = 10.0


class MemoryTier:
    """Reads and writes pass ``reads`` and ``writes``, which are open at first."""

    def __init__(self, layout: KvLayout, frames: int = 64, name: str = "memory") -> None:
        self.name = name
        self.frames = frames
        self.faults = Faults(logging.getLogger(__name__), name)
        self.reads, self.writes = threading.Event(), threading.Event()
        self.reads.set()
        self.writes.set()
        self.reading = threading.Event()  # a read has begun
        self.read_seconds = 0.0  # of each call
        self.broken_layer: int | None = None  # of every frame: reads of it find nothing
        self.full = False
        self.num_reads = 0
        self.closed = False
        self._blocks: dict[int, tuple[bytes, Tensor]] = {}
        self._layout = layout

    def contents(self) -> dict[int, bytes]:
        return {frame: key for frame, (key, _) in self._blocks.items()}

    def read(self, frames: Sequence[int], keys: Sequence[bytes], layers: range, out: Tensor) -> list[int]:
        self.num_reads += 1
        self.reading.set()
        assert self.reads.wait(GATE_SECONDS)
        time.sleep(self.read_seconds)
        if self.broken_layer in layers:
            self.faults.add("read", f"layer {self.broken_layer}", len(frames))
            return list(range(len(frames)))
        assert out.shape == (len(frames), len(layers), *self._layout.part_shape)
        bad = []
        for i, (frame, key) in enumerate(zip(frames, keys, strict=True)):
            held, block = self._blocks.get(frame, (b"", torch.empty(0)))
            if held == key:
                out[i] = block[layers.start : layers.stop]
            else:
                bad.append(i)
        return bad

    def write(self, frames: Sequence[int], keys: Sequence[bytes], blocks: Tensor) -> list[int]:
        assert self.writes.wait(GATE_SECONDS)
        if self.full:
            self.forget(frames)
            self.faults.add("write", "full", len(frames))
            return list(range(len(frames)))
        assert blocks.shape == (len(frames), *self._layout.block_shape)
        for frame, key, block in zip(frames, keys, blocks, strict=True):
            self._blocks[frame] = key, block.clone()
        return []

    def forget(self, frames: Iterable[int]) -> None:
        for frame in frames:
            self._blocks.pop(frame, None)

    def measure(self) -> TierSpeed:
        return TierSpeed(1e-4, 1e-4)

    def close(self) -> None:
        self.closed = True
