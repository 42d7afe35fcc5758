"""What one step of a group computes, as far as its duration depends on it.

A simulated rank makes it of each plan; the cost models turn it into seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class SpanWork:
    """Rows of a streamed slot, which run some of the layers."""

    layers: range
    rows: int
    pairs: int  # of a row and a token that it attends to, itself included

    @classmethod
    def of(cls, layers: range, start: int, count: int) -> SpanWork:
        """The rows of ``count`` tokens behind the first ``start`` ones."""
        return cls(layers, count, count * start + count * (count + 1) // 2)


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
    spans: tuple[SpanWork, ...] = ()  # rows that run some layers; the others run all
    layers: int = 1  # of the model; it matters where there are spans

    @property
    def whole_rows(self) -> int:
        """Rows that run through all layers."""
        return self.decodes + self.prefill

    @property
    def rows(self) -> int:
        """Rows that run through the model, or a part of it."""
        return self.whole_rows + sum([span.rows for span in self.spans])

    @property
    def samples(self) -> int:
        """Rows that sample a token."""
        return self.greedy + self.drawn + self.penalized

    def parts(self) -> list[tuple[float, StepWork]]:
        """Shares of the layers, and for each the step that has those rows in all layers that these have."""
        if not self.spans:
            return [(1.0, self)]
        ends = {0, self.layers}.union(*((span.layers.start, span.layers.stop) for span in self.spans))
        return [
            ((last - first) / self.layers, self._with(span for span in self.spans if first in span.layers))
            for first, last in pairwise(sorted(ends))
        ]

    def _with(self, spans: Iterable[SpanWork]) -> StepWork:
        """Of a span a single row reads KV as one that decodes, several multiply as those of a chunk."""
        decodes, context, prefill, pairs = self.decodes, self.context, self.prefill, self.prefill_pairs
        for span in spans:
            if span.rows == 1:
                decodes, context = decodes + 1, context + span.pairs
            else:
                prefill, pairs = prefill + span.rows, pairs + span.pairs
        return replace(self, decodes=decodes, context=context, prefill=prefill, prefill_pairs=pairs, spans=())
