"""The tiers of KV below the blocks of a group, as plans and results speak of them.

A group has some tiers, the fastest first: host memory, a disk. A tier has numbered frames, each of which
holds the KV of one block, of all layers and ranks, under the key that the scheduler gives to the block's
tokens and all those before them. The scheduler decides what is where; the group reports what a frame does not
hold after all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

KEY_BYTES = 16
"""Of the key of a block."""
RESIDENT_SHARE = 4
"""A request that is streamed can have one in so many blocks of the device, at least."""


@dataclass(frozen=True, slots=True)
class TierShape:
    """What one tier can hold and how fast it is, as a group announces it."""

    name: str  # for people and metrics: host, disk
    frames: int  # blocks
    read_block_seconds: float  # to bring one block back, where many follow one another
    write_block_seconds: float


def most_blocks(num_blocks: int, frames: Iterable[int]) -> int:
    """How many blocks one request can have in a group with so many on the device, and tiers with so many
    frames: all of the blocks, or the frames of one tier and a quarter of the blocks."""
    return max(num_blocks, num_blocks // RESIDENT_SHARE + max(frames, default=0))


class Spill(NamedTuple):
    """Blocks that are copied to a tier: what all steps before the plan's left in them. What the frames held
    before is gone. The blocks may change hands in the same plan."""

    tier: int  # its number among those of the group
    blocks: tuple[int, ...]
    frames: tuple[int, ...]  # one a block
    keys: tuple[bytes, ...]  # of what the blocks hold


class Fetch(NamedTuple):
    """Blocks of a slot that are filled from a tier. The same plan grants them, among the slot's cached ones.

    The copy begins when a rank has read the plan. The first step that reads the slot waits for it, layer by
    layer.
    """

    slot: int
    tier: int
    blocks: tuple[int, ...]
    frames: tuple[int, ...]  # one a block
    keys: tuple[bytes, ...]  # that the frames must hold


class Offload(NamedTuple):
    """The next blocks of a slot, behind those that are streamed already, are read from these frames by every
    layer of every row from this step on. A slot that has any is streamed: it leaves the decode set for good,
    and its rows run in spans.

    Blocks that the slot has on the device leave its table: they hold what the frames do. A slot that the
    same plan admits has none yet: of its cached blocks these are never granted.
    """

    slot: int
    tier: int
    frames: tuple[int, ...]  # one a block
    keys: tuple[bytes, ...]  # that the frames must hold


@dataclass(frozen=True, slots=True)
class Span:
    """Layers ``first_layer`` to ``last_layer - 1`` of the rows of ``tokens[start : start + count]`` of a
    streamed slot, whose hidden states stay on the device between steps.

    Spans of the same rows follow one another until the last layer; only then do the next rows begin. Rows
    are among the tokens of the admission, or one row of the token that was sampled last. Where they reach the
    last layer, and the last token of these, the slot samples in that step.
    """

    slot: int
    start: int
    count: int
    first_layer: int
    last_layer: int  # the first one that is not computed


class Frames(NamedTuple):
    """Some frames of a tier."""

    tier: int
    frames: tuple[int, ...]


class Contents(NamedTuple):
    """What some frames of a tier hold."""

    tier: int
    frames: tuple[int, ...]
    keys: tuple[bytes, ...]  # one a frame


class TierRead(NamedTuple):
    """What was read from a tier for the fetches of one slot."""

    tier: int
    blocks: int
    seconds: float  # from the first byte to the last
