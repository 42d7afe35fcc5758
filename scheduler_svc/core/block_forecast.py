"""A count of the KV blocks that releases give back, at once or when steps in flight have settled.

The plan builder makes it when blocks are short.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.request import Occupancy


class BlockForecast:
    """Counts blocks that come free by releases: those that wait for steps in flight, and those of the plan
    that is being built, which the ledger does not contain yet. A shared block comes free with the last of
    its owners, and one that is copied to a tier once the copy's step has settled.

    The plan builder makes one when blocks are short. It only reads the ledger, which must not change while
    the forecast is used.
    """

    def __init__(self, ledger: Ledger, releasing: Iterable[Occupancy]) -> None:
        """``releasing``: what the plan builder has decided to release so far."""
        self.now = 0  # blocks that are free once the plan is booked
        self.later = 0  # blocks that are free once all steps in flight have settled
        self._ledger = ledger
        self._released_owners: Counter[int] = Counter()
        self._in_flight: set[int] = set()  # blocks of occupancies whose last step has not settled
        self.later += ledger.pool.num_withheld
        for step in ledger.in_flight:
            self._add(step.left, in_flight=True)
            for occupancy in step.released:
                self.add(occupancy, occupancy.blocks)
        for occupancy in releasing:
            self.add(occupancy, occupancy.blocks)

    def add(self, occupancy: Occupancy, blocks: Sequence[int]) -> None:
        """The plan builder has decided that a slot gives up more of its blocks, or the last ones."""
        self._add(blocks, in_flight=occupancy.last_step > self._ledger.settled_step)

    def _add(self, blocks: Sequence[int], *, in_flight: bool) -> None:
        """``in_flight``: whether a step in flight may still use them."""
        if in_flight:
            self._in_flight.update(blocks)
        for block in blocks:
            self._released_owners[block] += 1
            if self._released_owners[block] == self._ledger.pool.owners(block):
                if block in self._in_flight or self._ledger.pool.is_held(block):
                    self.later += 1
                else:
                    self.now += 1
