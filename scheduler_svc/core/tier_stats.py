"""The counts of one KV tier of a group, for metrics and for the load that is published.

The ledger's part about tiers makes them; they are part of :class:`scheduler_svc.core.stats.GroupStats`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TierCounters:
    """Totals of one tier since the group joined, written by the ledger; see :class:`TierStats`."""

    blocks_fetched: int = 0
    blocks_spilled: int = 0
    frames_lost: int = 0
    fetches_failed: int = 0
    prefix_hit_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TierStats:
    """A snapshot of one tier: gauges first, then totals since the group joined."""

    name: str
    frames_total: int
    frames_used: int  # that hold a block, as far as the scheduler knows
    blocks_fetched: int = 0  # by plans, whether or not they came
    blocks_spilled: int = 0  # likewise
    frames_lost: int = 0  # that the group reported to hold nothing after all
    fetches_failed: int = 0  # of slots, whose requests were then computed instead
    prefix_hit_tokens: int = 0  # of prompts as they were first admitted, read instead of computed
