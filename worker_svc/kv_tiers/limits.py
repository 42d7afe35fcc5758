"""What bounds the transfers between blocks and tiers of a rank, and of a simulated one."""

from __future__ import annotations

from collections.abc import Iterator

FETCH_SECONDS = 2.0
"""How long a step waits for a tier that brings nothing."""
MOST_SECONDS = 20.0
"""How long a step waits for its fetches in all: 60 GB at 3 GB/s. A rank ends after a step of 120 s."""
MOST_STREAM_SECONDS = 90.0
"""How long a step waits for what its spans read in all, also where it comes: the rest is for computing."""
PORTION = 8
"""Most blocks of one host buffer for spills: one copy brings them, one write takes them away."""
FEWEST, MOST = 4, 32
RING_BYTES = 256 << 20
PORTION_FRAMES = 4096
"""Of the contents in one result."""
MOST_LAYERS = 8
"""Of one piece of a fetch."""
PIECE_BYTES = 32 << 10
"""Of one block, a piece has at least about so much: a read from a disk takes its time however small it is."""
WHOLE_BYTES = 32 << 20
"""A fetch of so much at most has all layers in one piece."""

FEWEST_PIECES, MOST_PIECES = 2, 16
PIECES_BYTES = 64 << 20
"""Of the buffers on the device for what streamed slots read: with more than two, much of a step's span is
there when the step begins."""


def piece_buffers(piece_bytes: int) -> int:
    """Buffers for pieces that layers of streamed slots read: as many as fit, at most ``MOST_PIECES``."""
    return max(FEWEST_PIECES, min(MOST_PIECES, PIECES_BYTES // piece_bytes))


def ring_buffers(block_bytes: int) -> int:
    """Buffers for spills: of large blocks there are fewer, 256 MiB, or four."""
    return max(FEWEST, min(MOST, RING_BYTES // (PORTION * block_bytes)))


def layer_ranges(layers: int, part_bytes: int, blocks: int) -> Iterator[range]:
    """The pieces of a fetch: the first layers come alone, so that compute can begin, later ones by more.

    ``part_bytes``: of one layer of a block. A small fetch is one piece: it takes less time than a step, in
    which it could go on, and whole frames take half the CPU time of their layers one after the other, which
    compute on the same cores goes without. Of a larger one compute waits for whole pieces: where reading
    takes as long as computing, a step takes one piece longer than either. So a piece has at most a twentieth
    of the layers, unless that is very little to read at once.
    """
    if blocks * layers * part_bytes <= WHOLE_BYTES:
        yield range(layers)
        return
    most = min(MOST_LAYERS, max(1, layers // 20, PIECE_BYTES // part_bytes))
    first, count = 0, 1
    while first < layers:
        yield range(first, stop := min(layers, first + count))
        count = min(most, 2 * count) if first else 1
        first = stop
