"""Buckets: numbers of rows that steps are padded to, so that few CUDA graphs serve all of them."""

from __future__ import annotations

APART = 8
"""Rows between two buckets of at most 256 rows."""


def bucket_sizes(most: int) -> tuple[int, ...]:
    """1, 2, 4, 8, 16, 24, ..., 256, 272, ..., up to ``most``; of a large one a sixteenth at most pads."""
    sizes, rows = list[int](), 1
    while rows < most:
        sizes.append(rows)
        rows += rows if rows < APART else max(APART, (1 << (rows.bit_length() - 1)) // 16)
    return (*sizes, most)


def bucket_of(rows: int, sizes: tuple[int, ...]) -> int:
    """The first of ``sizes``, which ascend, that has room for ``rows``: at most the last one."""
    return next(size for size in sizes if size >= rows)
