"""What an occupancy of a slot has in frames of tiers instead of blocks, and how far its rows have come.

The ledger makes and changes it; the plan builder reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from albireo.contract.tiers import Span
from scheduler_svc.core.fetching import Source


@dataclass(slots=True)
class Streaming:
    """The KV of the first tokens, which each layer reads from frames; and the rows under way, whose hidden
    states are on the device between steps."""

    sources: list[Source] = field(default_factory=list)  # of the first blocks, in order
    start: int = 0  # the first token of the rows under way, if any
    count: int = 0  # of their tokens
    next_layer: int = 0  # that they have not run; 0: no rows are under way

    @property
    def under_way(self) -> bool:
        """Whether rows have run some of their layers."""
        return self.next_layer > 0

    def fits(self, span: Span, *, scheduled: int, num_layers: int) -> bool:
        """Whether a span is the next one. ``scheduled``: tokens with KV in all layers."""
        if not 0 <= span.first_layer < span.last_layer <= num_layers:
            return False
        if self.under_way:
            return (span.start, span.count, span.first_layer) == (self.start, self.count, self.next_layer)
        return span.start == scheduled and span.count > 0 and span.first_layer == 0

    def advance(self, span: Span, *, num_layers: int) -> bool:
        """Takes a span as run. Whether its rows have run all layers."""
        ended = span.last_layer == num_layers
        self.start, self.count = (0, 0) if ended else (span.start, span.count)
        self.next_layer = 0 if ended else span.last_layer
        return ended
