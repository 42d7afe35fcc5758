"""What plans, results and announcements say about tiers of KV, to and from protobuf.

The codec of the logs, the scheduler and the workers call it.

What is read raises ValueError where its parts do not fit together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from albireo.contract.tiers import (
    KEY_BYTES,
    Contents,
    Fetch,
    Frames,
    Offload,
    Span,
    Spill,
    TierRead,
    TierShape,
)
from albireo.v1 import log_pb2 as log


def shapes_to_proto(tiers: Iterable[TierShape]) -> list[log.Tier]:
    return [
        log.Tier(
            name=tier.name,
            frames=tier.frames,
            read_block_seconds=tier.read_block_seconds,
            write_block_seconds=tier.write_block_seconds,
        )
        for tier in tiers
    ]


def shapes_from_proto(messages: Iterable[log.Tier]) -> tuple[TierShape, ...]:
    return tuple(
        TierShape(tier.name, tier.frames, tier.read_block_seconds, tier.write_block_seconds)
        for tier in messages
    )


def add_to_plan(message: log.Plan, spills: Iterable[Spill], fetches: Iterable[Fetch]) -> None:
    for spill in spills:
        message.spills.add(
            tier=spill.tier, blocks=spill.blocks, frames=spill.frames, keys=b"".join(spill.keys)
        )
    for fetch in fetches:
        message.fetches.add(
            slot=fetch.slot,
            tier=fetch.tier,
            blocks=fetch.blocks,
            frames=fetch.frames,
            keys=b"".join(fetch.keys),
        )


def spills_from_proto(messages: Iterable[log.Spill]) -> tuple[Spill, ...]:
    return tuple(
        Spill(m.tier, blocks, frames, _keys(m.keys, frames))
        for m in messages
        for blocks, frames in [_parallel(m.blocks, m.frames)]
    )


def fetches_from_proto(messages: Iterable[log.Fetch]) -> tuple[Fetch, ...]:
    return tuple(
        Fetch(m.slot, m.tier, blocks, frames, _keys(m.keys, frames))
        for m in messages
        for blocks, frames in [_parallel(m.blocks, m.frames)]
    )


def add_streamed_to_plan(message: log.Plan, offloads: Iterable[Offload], spans: Iterable[Span]) -> None:
    for offload in offloads:
        message.offloads.add(
            slot=offload.slot, tier=offload.tier, frames=offload.frames, keys=b"".join(offload.keys)
        )
    for span in spans:
        message.spans.add(
            slot=span.slot,
            start=span.start,
            count=span.count,
            first_layer=span.first_layer,
            last_layer=span.last_layer,
        )


def offloads_from_proto(messages: Iterable[log.Offload]) -> tuple[Offload, ...]:
    return tuple(
        Offload(m.slot, m.tier, frames, _keys(m.keys, frames))
        for m in messages
        for frames in [tuple(m.frames[:])]
    )


def spans_from_proto(messages: Iterable[log.Span]) -> tuple[Span, ...]:
    return tuple(Span(m.slot, m.start, m.count, m.first_layer, m.last_layer) for m in messages)


def contents_to_proto(contents: Iterable[Contents]) -> list[log.Contents]:
    return [log.Contents(tier=c.tier, frames=c.frames, keys=b"".join(c.keys)) for c in contents]


def lost_to_proto(lost: Iterable[Frames]) -> list[log.Frames]:
    return [log.Frames(tier=frames.tier, frames=frames.frames) for frames in lost]


def read_to_proto(read: Iterable[TierRead]) -> list[log.TierRead]:
    return [log.TierRead(tier=r.tier, blocks=r.blocks, seconds=r.seconds) for r in read]


def contents_from_proto(messages: Iterable[log.Contents]) -> tuple[Contents, ...]:
    return tuple(
        Contents(m.tier, frames, _keys(m.keys, frames)) for m in messages for frames in [tuple(m.frames[:])]
    )


def lost_from_proto(messages: Iterable[log.Frames]) -> tuple[Frames, ...]:
    return tuple(Frames(m.tier, tuple(m.frames[:])) for m in messages)


def read_from_proto(messages: Iterable[log.TierRead]) -> tuple[TierRead, ...]:
    return tuple(TierRead(m.tier, m.blocks, m.seconds) for m in messages)


def _parallel(blocks: Sequence[int], frames: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if len(blocks) != len(frames):
        raise ValueError(f"{len(blocks)} blocks and {len(frames)} frames of a tier")
    return tuple(blocks[:]), tuple(frames[:])


def _keys(joined: bytes, frames: Sequence[int]) -> tuple[bytes, ...]:
    if len(joined) != KEY_BYTES * len(frames):
        raise ValueError(f"{len(joined)} bytes of keys for {len(frames)} frames of a tier")
    return tuple(joined[first : first + KEY_BYTES] for first in range(0, len(joined), KEY_BYTES))
