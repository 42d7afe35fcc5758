"""Random use of a disk tier, against a dict of what its frames hold."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker_svc.kv_tiers.blocks import LAYOUT, flip, key, missing, write
from worker_svc.kv_tiers.disk import DiskTier

FRAMES, NUMBERS = 8, 30
SIZE = LAYOUT.block_bytes
HEADER = 4096

Operation = tuple[str, list[int], int]
FRAME_LISTS = st.lists(st.integers(0, FRAMES - 1), unique=True, max_size=FRAMES)


def operations(kind: str, frames: st.SearchStrategy[list[int]], most: int) -> st.SearchStrategy[Operation]:
    """``most``: of the number that goes with it."""
    return st.tuples(st.just(kind), frames, st.integers(0, most))


WRITES = operations("write", FRAME_LISTS, NUMBERS - 1)
READS = operations("read", FRAME_LISTS, LAYOUT.layers - 1)
FORGETS = operations("forget", FRAME_LISTS, 0)
OPENINGS = operations("open", st.just([]), 0)
FLIPS = operations("flip", st.just([]), FRAMES * SIZE * 8 - 1)


def opened(directory: Path) -> DiskTier:
    return DiskTier.open(directory, FRAMES * SIZE, LAYOUT)


def apply(tier: DiskTier, held: dict[int, int], damaged: set[int], operation: Operation) -> None:
    kind, frames, value = operation
    match kind:
        case "write":
            numbers = [(value + position) % NUMBERS for position in range(len(frames))]
            assert write(tier, frames, numbers) == []
            held |= dict(zip(frames, numbers, strict=True))
            damaged -= set(frames)
        case "forget":
            tier.forget(frames)
            for frame in frames:
                held.pop(frame, None)
        case "read":
            numbers = [held.get(frame, 0) for frame in frames]
            failed = missing(tier, frames, numbers, range(value, LAYOUT.layers))
            absent = {frames[i] for i in failed}
            assert absent - damaged == {frame for frame in frames if frame not in held} - damaged
            for frame in absent & damaged:
                held.pop(frame, None)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(WRITES, WRITES, READS, FORGETS, OPENINGS, FLIPS), max_size=30))
def test_every_frame_holds_what_was_written_last_or_nothing(uses: list[Operation]) -> None:
    """``missing`` compares what is read bit by bit. Frames with a flipped bit may be absent, no others."""
    held: dict[int, int] = {}
    damaged: set[int] = set()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        tier = opened(directory)
        for operation in uses:
            if operation[0] == "open":
                tier.close()
                tier = opened(directory)
            elif operation[0] == "flip":
                byte, bit = divmod(operation[2], 8)
                flip(directory / "rank0-0.data", byte, bit)
                damaged.add(byte // SIZE)
            else:
                apply(tier, held, damaged, operation)
            assert tier.contents() == {frame: key(number) for frame, number in held.items()}
        tier.close()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, HEADER * 8 + FRAMES * 32 * 8 - 1))
def test_a_bit_anywhere_in_the_index_costs_one_frame_or_all(position: int) -> None:
    frames = list(range(FRAMES))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        tier = opened(directory)
        write(tier, frames, frames)
        tier.close()
        flip(directory / "rank0-0.index", *divmod(position, 8))
        tier = opened(directory)
        absent = missing(tier, frames, frames)
        assert absent == (frames if position < HEADER * 8 else [(position // 8 - HEADER) // 32])
        tier.close()
