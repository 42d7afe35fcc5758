"""The bounds of transfers."""

from __future__ import annotations

import pytest

from worker_svc.kv_tiers.limits import (
    FEWEST,
    MOST,
    PORTION,
    RING_BYTES,
    WHOLE_BYTES,
    layer_ranges,
    ring_buffers,
)

KIB = 1 << 10


@pytest.mark.parametrize(
    ("layers", "part_bytes", "pieces"),
    [
        (1, 64, [1]),
        (24, 32 * KIB, [1] * 24),
        (24, 8 * KIB, [1, 1, 2, 4, 4, 4, 4, 4]),  # small parts
        (64, 32 * KIB, [1, 1, 2, *[3] * 20]),
        (48, 64, [1, 1, 2, 4, 8, 8, 8, 8, 8]),
    ],
)
def test_the_pieces_of_a_fetch_cover_all_layers(layers: int, part_bytes: int, pieces: list[int]) -> None:
    ranges = list(layer_ranges(layers, part_bytes, WHOLE_BYTES))
    assert [layer for piece in ranges for layer in piece] == list(range(layers))
    assert [len(piece) for piece in ranges] == pieces


@pytest.mark.parametrize("layers", [20, 24, 28, 32, 64, 80])
def test_a_step_takes_a_twentieth_longer_at_most_than_its_reading_or_computing(layers: int) -> None:
    assert max(map(len, layer_ranges(layers, 64 * KIB, WHOLE_BYTES))) <= layers / 20


def test_a_small_fetch_is_one_piece() -> None:
    blocks = WHOLE_BYTES // (24 * 8 * KIB)
    assert list(layer_ranges(24, 8 * KIB, blocks)) == [range(24)]
    assert len(list(layer_ranges(24, 8 * KIB, blocks + 1))) > 1


def test_the_ring_is_bounded() -> None:
    assert ring_buffers(1) == MOST
    assert ring_buffers(RING_BYTES) == FEWEST
    assert ring_buffers(1 << 20) == RING_BYTES // (PORTION << 20)
