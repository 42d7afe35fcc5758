"""What one step of a group computes, as far as its duration depends on it.

A simulated rank makes it of each plan; the cost models turn it into seconds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepWork:
    """Counts of one step, over the whole group."""

    decodes: int = 0  # decoding rows
    context: int = 0  # tokens whose keys and values the decoding rows read, their own included
    prefill: int = 0  # tokens of chunks
    prefill_pairs: int = 0  # of the chunks: pairs of a token and one that it attends to, itself included
    greedy: int = 0  # rows that sample with temperature 0 and no penalties
    drawn: int = 0  # rows that sample with a temperature and no penalties
    penalized: int = 0  # rows that sample with penalties

    @property
    def rows(self) -> int:
        """Rows that run through the model."""
        return self.decodes + self.prefill

    @property
    def samples(self) -> int:
        """Rows that sample a token."""
        return self.greedy + self.drawn + self.penalized
