"""What every tier does."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.worker_svc.kv_tiers.blocks import FRAMES, LAYOUT, blocks, key, missing, read, same, write
from worker_svc.kv_tiers.interface import Tier

ORDERS = {"apart": [3, 1, 19], "in a row": [4, 5, 6, 7], "two runs": [8, 9, 2, 3, 4], "one": [0], "none": []}


def test_a_new_tier_holds_nothing(tier: Tier) -> None:
    assert tier.frames == FRAMES
    assert tier.contents() == {}
    assert missing(tier, [0, 1], [0, 1]) == [0, 1]


@pytest.mark.parametrize("frames", ORDERS.values(), ids=ORDERS)
def test_what_was_written_is_read(tier: Tier, frames: list[int]) -> None:
    numbers = [100 + frame for frame in frames]
    assert write(tier, frames, numbers) == []
    assert tier.contents() == {frame: key(100 + frame) for frame in frames}
    assert same(read(tier, frames, numbers), blocks(*numbers))
    backwards = frames[::-1], numbers[::-1]
    assert same(read(tier, *backwards), blocks(*backwards[1]))


@pytest.mark.parametrize("layers", [range(1), range(1, 2), range(1, 3), range(2, 3), range(3)], ids=str)
def test_any_layers_are_read(tier: Tier, layers: range) -> None:
    frames = [5, 6, 2]
    write(tier, frames, frames)
    expected = blocks(*frames)[:, layers.start : layers.stop]
    assert same(read(tier, frames, frames, layers), expected)


def test_a_part_of_a_larger_buffer_is_read_and_written(tier: Tier) -> None:
    """As the ring of a fetch has them: each block's memory is whole, but not next to the other's."""
    buffer = torch.zeros((4, 2 * LAYOUT.layers, *LAYOUT.part_shape), dtype=LAYOUT.dtype)
    part = buffer[:2, 1 : 1 + LAYOUT.layers]
    part.copy_(blocks(1, 2))
    assert tier.write([7, 8], [key(1), key(2)], part) == []
    part.zero_()
    assert tier.read([7, 8], [key(1), key(2)], range(LAYOUT.layers), part) == []
    assert same(part, blocks(1, 2))
    part.zero_()
    assert not buffer.any()


def test_blocks_whose_memory_is_not_whole_are_refused(tier: Tier) -> None:
    turned = blocks(1, 2).transpose(2, 3)
    with pytest.raises(RuntimeError):
        tier.write([0, 1], [key(1), key(2)], turned)


def test_only_under_its_own_key(tier: Tier) -> None:
    write(tier, [1, 2, 3], [1, 2, 3])
    assert missing(tier, [1, 2, 3, 4], [1, 9, 3, 2]) == [1, 3]
    assert missing(tier, [1, 2, 3], [1, 2, 3]) == []  # to ask for another key changes nothing


def test_a_frame_that_is_written_again_holds_the_new_block_only(tier: Tier) -> None:
    write(tier, [1, 2, 3], [1, 2, 3])
    write(tier, [2], [7])
    assert missing(tier, [1, 2, 3, 2], [1, 2, 3, 7]) == [1]


def test_a_forgotten_frame_holds_nothing(tier: Tier) -> None:
    write(tier, [1, 2, 3], [1, 2, 3])
    tier.forget([3, 1, 9])
    assert tier.contents() == {2: key(2)}
    assert missing(tier, [1, 2, 3], [1, 2, 3]) == [0, 2]


def test_frames_that_there_are_not_are_no_error(tier: Tier) -> None:
    assert write(tier, [-1, FRAMES - 1, FRAMES], [1, 2, 3]) == [0, 2]
    assert missing(tier, [-1, FRAMES - 1, FRAMES], [1, 2, 3]) == [0, 2]
    tier.forget([-1, FRAMES])
    assert tier.contents() == {FRAMES - 1: key(2)}
    assert missing(tier, [FRAMES - 1, 0], [2, 1]) == [1]


def test_measuring_leaves_the_frames_as_they_are(tier: Tier) -> None:
    frames = list(range(FRAMES))
    write(tier, frames, frames)
    speed = tier.measure()
    assert speed.read_block_seconds > 0
    assert speed.write_block_seconds > 0
    assert missing(tier, frames, frames) == []


def test_a_thread_reads_while_another_writes(tier: Tier) -> None:
    """Of different frames, as the plan has them: the first half is read, the second written."""
    half = FRAMES // 2
    readable, writable = list(range(half)), list(range(half, FRAMES))
    write(tier, readable, readable)

    def reader() -> None:
        order = random.Random(1)
        for _ in range(60):
            frames = order.sample(readable, 4)
            assert missing(tier, frames, frames) == []

    def writer() -> None:
        order = random.Random(2)
        for turn in range(60):
            frames = order.sample(writable, 4)
            numbers = [100 * turn + frame for frame in frames]
            assert write(tier, frames, numbers) == []
            assert missing(tier, frames, numbers) == []

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(reader), pool.submit(writer)]:
            done.result(60)
    assert missing(tier, readable, readable) == []
