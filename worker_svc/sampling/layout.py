"""Which rank samples which rows of a step, and keeps penalty state for which slots.

Every rank decides it for itself, in the input stage; all decide the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from worker_svc.buffers.arrays import Ints

SamplingMode = Literal["auto", "parallel", "driver"]

PARALLEL_ROWS = 16
"""Rows from which on ``auto`` shares the sampling among the ranks; see `albireo bench sampling`."""


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """Of one step, as one rank sees it. All but ``first`` and ``last`` is the same on every rank."""

    parallel: bool
    counts: tuple[int, ...]  # rows that each rank samples, in the order of the step's rows
    first: int  # this rank samples rows [first, last)
    last: int


class SamplingPolicy:
    """Decides by the number of rows alone, which the plan's header gives: all ranks decide the same.

    A slot belongs to the rank ``slot mod size``. In a step that is not sampled in parallel, rank 0 samples
    all rows; so in ``auto`` rank 0 keeps the penalty state of every slot, as the slots' owners do of theirs.
    """

    def __init__(self, mode: SamplingMode = "auto", rank: int = 0, size: int = 1) -> None:
        self._rank = rank
        self._size = size
        self._threshold = {"auto": PARALLEL_ROWS, "parallel": 1, "driver": None}[mode] if size > 1 else None
        self._drives = (rank == 0 and mode != "parallel") or size == 1

    def owners(self, slots: Ints) -> Ints:
        return slots % self._size

    def parallel(self, rows: int) -> bool:
        """Whether all ranks sample a step of so many rows, or rank 0 alone."""
        return self._threshold is not None and rows >= self._threshold

    def layout(self, slots: Ints) -> SampleLayout:
        """``slots``: of the rows that sample, ascending by owner."""
        if not self.parallel(len(slots)):
            counts = (len(slots), *[0] * (self._size - 1))
            return SampleLayout(False, counts, 0, counts[self._rank])
        counts = tuple(np.bincount(self.owners(slots), minlength=self._size).tolist())
        first = sum(counts[: self._rank])
        return SampleLayout(True, counts, first, first + counts[self._rank])

    def most_rows(self, slots: int) -> int:
        """Rows that this rank samples at most, of a table of ``slots``."""
        shared = 0 if self._threshold is None else -(-slots // self._size)
        alone = slots if self._threshold is None else min(slots, self._threshold - 1)
        return max(shared, alone) if self._rank == 0 else shared

    def state_rows(self, slots: int) -> int:
        """Rows of penalty state that this rank needs for a table of ``slots``."""
        if self._threshold is None:
            return slots if self._drives else 0
        return slots if self._drives else -(-slots // self._size)

    def state_row(self, slots: Ints) -> Ints:
        """Where the penalty state of each slot lies here; -1 where it does not."""
        if self._drives:
            return slots
        own = (self.owners(slots) == self._rank) & (self._threshold is not None)
        return np.where(own, slots // self._size, -1)
