"""What is fetched from tiers for an occupancy of a slot.

The ledger makes it; the plan builder reads it, and notes when it expects it to be done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Source(NamedTuple):
    """Where the KV of one block is fetched from."""

    tier: int
    frame: int
    key: bytes


@dataclass(slots=True)
class Fetching:
    """The fetches of an occupancy, until the first step that reads them has settled or it is freed."""

    sources: dict[int, Source] = field(default_factory=dict)  # by block
    ready_at: float = 0.0  # when all are expected to be done, by the maker of the plan; 0 elsewhere
