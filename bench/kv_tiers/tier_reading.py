"""How fast a disk's KV tier brings what a streamed context asks for, with nothing else to do."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from worker_svc.kv_tiers.disk import DiskTier
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.streamed_frames import PIECE_BLOCKS

PORTION = 8
"""Blocks of one write."""


class ReadingSpeed(NamedTuple):
    """Bytes per second, checksums included."""

    disk: float  # the first time, with the page cache empty
    cache: float  # from the page cache


def reading_speed(layout: KvLayout, blocks: int) -> ReadingSpeed:
    """Of ``blocks`` that follow one another, layer by layer and in pieces, by one thread.

    Raises TierError where there is no space, RuntimeError where a block does not come back.
    """
    keys = [number.to_bytes(16, "big") for number in range(blocks)]
    with tempfile.TemporaryDirectory() as directory:
        tier = DiskTier.open(Path(directory), blocks * layout.block_bytes, layout)
        try:
            content = torch.randn(PORTION, *layout.block_shape).to(layout.dtype)
            for first in range(0, blocks, PORTION):
                frames = range(first, min(first + PORTION, blocks))
                tier.write(frames, keys[frames.start : frames.stop], content[: len(frames)])
            drop_cached_pages(Path(directory))
            return ReadingSpeed(*(_read_all(tier, layout, keys) for _ in ReadingSpeed._fields))
        finally:
            tier.close()


def _read_all(tier: DiskTier, layout: KvLayout, keys: list[bytes]) -> float:
    out = torch.empty(PIECE_BLOCKS, 1, *layout.part_shape, dtype=layout.dtype)
    began = time.perf_counter()
    for layer in range(layout.layers):
        for first in range(0, len(keys), PIECE_BLOCKS):
            frames = range(first, min(first + PIECE_BLOCKS, len(keys)))
            layers, wanted = range(layer, layer + 1), keys[frames.start : frames.stop]
            if tier.read(frames, wanted, layers, out[: len(frames)]):
                raise RuntimeError("blocks that were just written could not be read")
    return len(keys) * layout.block_bytes / (time.perf_counter() - began)


def drop_cached_pages(directory: Path) -> None:
    """The files of a directory leave the operating system's memory, so that they are read from the disk."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
