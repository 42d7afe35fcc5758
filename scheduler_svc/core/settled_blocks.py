"""The blocks that settled steps have filled: what becomes of them.

The ledger makes it and calls it.
"""

from __future__ import annotations

from scheduler_svc.core.blocks import BlockPool
from scheduler_svc.core.request import Occupancy
from scheduler_svc.core.step_in_flight import StepInFlight
from scheduler_svc.core.tier_ledger import TierLedger


class SettledBlocks:
    """Offers full blocks to the prefix cache once their content has settled, and with it to the tiers; takes
    back what turns out to be invalid, or is not used any more."""

    def __init__(self, pool: BlockPool, tiers: TierLedger, *, prefix_cache: bool) -> None:
        self._pool = pool
        self._tiers = tiers
        self._prefix_cache = prefix_cache

    def settle(self, step: StepInFlight) -> list[Occupancy]:
        """The chunks of a step have KV, and so have the blocks that its rows have filled. Returns the
        occupancies whose KV from tiers has come with it."""
        fetched = []
        for occupancy, computed in step.chunks:
            if occupancy.unfetched:
                continue
            occupancy.computed = computed
            if occupancy.fetching is not None:
                self._tiers.fetched(occupancy)
                fetched.append(occupancy)
            elif occupancy.streaming is not None:
                fetched.append(occupancy)
            if self._prefix_cache:
                self._register(occupancy, computed)
        if self._prefix_cache:
            for occupancy in (*step.full, *step.decoded):
                if occupancy.request.occupancy is occupancy:  # else its row does not count
                    self._register(occupancy, len(occupancy.tokens) - 1)
        return fetched

    def invalidate(self, occupancy: Occupancy) -> None:
        """The KV may be NaN: no prefix may hit it."""
        for block in occupancy.blocks:
            self._pool.unregister(block)
        if self._tiers.directories:
            self._tiers.forget(occupancy)

    def drop(self, occupancy: Occupancy) -> None:
        """The occupancy is over: its blocks have one owner less."""
        if self._tiers.directories:
            self._tiers.freed(occupancy)
        self._pool.drop(occupancy.blocks)

    def _register(self, occupancy: Occupancy, settled: int) -> None:
        first = occupancy.registered
        occupancy.register_blocks(self._pool, settled)
        if self._tiers.directories:
            self._tiers.registered(occupancy.blocks[first : occupancy.registered])
