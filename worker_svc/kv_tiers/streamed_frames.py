"""Which frames the layers of a streamed slot read, in pieces.

The slot table keeps them; :mod:`worker_svc.kv_tiers.streaming` reads them.
"""

from __future__ import annotations

from typing import NamedTuple

from albireo.contract.tiers import Offload

PIECE_BLOCKS = 64
"""Most blocks of a piece: 1,024 tokens of one layer, which is some megabytes."""


class FramePiece(NamedTuple):
    """Frames of one tier that are read together, and the keys that they must hold."""

    tier: int
    frames: tuple[int, ...]
    keys: tuple[bytes, ...]


class SpanFrames(NamedTuple):
    """What one span reads: in each of its layers all pieces, in their order."""

    incarnation: int
    layers: range
    pieces: tuple[FramePiece, ...]


class StreamedFrames:
    """The frames of one slot, in the order of its blocks."""

    def __init__(self) -> None:
        self.pieces: tuple[FramePiece, ...] = ()
        self.blocks = 0

    def add(self, offload: Offload) -> None:
        self.blocks += len(offload.frames)
        frames, keys, pieces = offload.frames, offload.keys, list(self.pieces)
        if pieces and pieces[-1].tier == offload.tier and len(pieces[-1].frames) < PIECE_BLOCKS:
            last = pieces.pop()
            frames, keys = last.frames + frames, last.keys + keys
        for first in range(0, len(frames), PIECE_BLOCKS):
            some = slice(first, first + PIECE_BLOCKS)
            pieces.append(FramePiece(offload.tier, frames[some], keys[some]))
        self.pieces = tuple(pieces)
