"""A step in flight: its plan is published, its result has not settled.

The ledger makes and changes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scheduler_svc.core.request import Occupancy
from scheduler_svc.core.waiting_end import WaitingEnd


@dataclass(slots=True)
class StepInFlight:
    """A step that is published and not settled, or whose plan is being built or applied."""

    step: int
    chunks: list[tuple[Occupancy, int]] = field(default_factory=list)  # with ``scheduled`` after the chunk
    spans: list[Occupancy] = field(default_factory=list)  # streamed ones, of which it runs some layers
    streamed_blocks: int = 0  # that these layers read, all together; and their rows:
    streamed_rows: int = 0
    streamed_prompt: bool = False  # whether a span has more than one row
    decoded: list[Occupancy] = field(default_factory=list)  # of these, whose decoding row it ends
    prefill_tokens: int = 0  # of all chunks
    rows: int = 0  # that decode
    full: Sequence[Occupancy] = ()  # rows that fill their block table in this step, or come to their end
    ended: list[WaitingEnd] = field(default_factory=list)  # that its result repeats, and readers then know
    left: list[int] = field(default_factory=list)  # blocks that are in frames now: this step uses them last
    spilled: Mapping[int, int] = field(default_factory=dict)  # copies to tiers that read a block until then
    written: Sequence[tuple[int, int]] = ()  # tiers and frames of these copies
    released: list[Occupancy] = field(default_factory=list)  # free when this step settles: it was their last
