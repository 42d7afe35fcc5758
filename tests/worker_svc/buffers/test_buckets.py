"""Buckets are few, and pad little."""

from __future__ import annotations

from itertools import pairwise

import pytest

from worker_svc.buffers.buckets import bucket_of, bucket_sizes


@pytest.mark.parametrize(("most", "count"), [(1, 1), (8, 4), (256, 35), (300, 38), (512, 51), (1024, 67)])
def test_the_number_of_buckets_is_bounded(most: int, count: int) -> None:
    sizes = bucket_sizes(most)
    assert (len(sizes), sizes[-1]) == (count, most)
    for before, rows in pairwise(sizes):
        assert rows - before <= (before if before <= 8 else max(8, rows / 16))


def test_the_first_with_room_is_taken() -> None:
    sizes = bucket_sizes(20)
    assert [bucket_of(rows, sizes) for rows in (1, 3, 4, 5, 16, 17, 20)] == [1, 4, 4, 8, 16, 20, 20]
