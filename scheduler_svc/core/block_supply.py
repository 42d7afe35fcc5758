"""The supply of blocks for the requests that hold slots, in one plan: who gets some, and who is preempted.

The plan builder makes it, once for each plan.
"""

from __future__ import annotations

from operator import attrgetter

from scheduler_svc.core.block_forecast import BlockForecast
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.request import Occupancy, Phase


class BlockSupply:
    """Promises free blocks, and chooses who leaves its slot. Decisions are in here until the plan builder
    books them; the ledger must not change before."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.releasing: dict[Occupancy, None] = {}  # in order
        self.rows = len(ledger.phases[Phase.DECODING])  # that decode in this step
        self.running = ledger.num_running  # requests that hold a slot and go on
        self.free = ledger.pool.num_free  # blocks, promised to no request, without those in the forecast
        self.scarce = False  # a request waits for a block, or was preempted
        self.stuck = False  # no block is coming for the last one that waits, and none was admitted later
        self._forecast: BlockForecast | None = None  # made at the first shortage
        self._given_up: dict[Occupancy, int] = {}  # how many of its first blocks leave a slot for frames
        self._victims: list[Occupancy] | None = None  # that may be preempted, in order of admission

    def release(self, occupancy: Occupancy) -> None:
        """A request that has not finished leaves its slot."""
        self.releasing[occupancy] = None
        self.running -= 1
        if occupancy.phase is Phase.DECODING:
            self.rows -= 1

    def give_up(self, occupancy: Occupancy, count: int) -> None:
        """Its first blocks leave a slot that goes on, once in a plan."""
        self._given_up[occupancy] = count
        if self._forecast is not None:
            self._forecast.add(occupancy, occupancy.blocks[:count])

    def obtain(self, occupancy: Occupancy, count: int) -> bool:
        """Promises ``count`` blocks to an occupancy. True if they are free when the plan is booked; otherwise
        it waits for them in place."""
        self.stuck = False
        found = self.free >= count or self._make_free(occupancy, count)
        self.free -= count
        return found

    def _make_free(self, occupancy: Occupancy, count: int) -> bool:
        """Preempts requests that were admitted later until ``count`` blocks are free.

        False if that is not useful, since enough blocks come free when steps in flight settle, or not
        possible, since none was admitted later: only the occupancy's own work could be thrown away.
        """
        if self._forecast is None:
            self._forecast = BlockForecast(self._ledger, self.releasing)
            for other, given in self._given_up.items():
                if other not in self.releasing:
                    self._forecast.add(other, other.blocks[:given])
        forecast = self._forecast
        while self.free + forecast.now < count:
            self.scarce = True
            coming = self.free + forecast.now + forecast.later
            if coming >= count:
                return False
            if not self._preempt_after(occupancy, forecast):
                self.stuck = True
                return False
        return True

    def _preempt_after(self, occupancy: Occupancy, forecast: BlockForecast) -> bool:
        """Preempts the request that was admitted last, if that was after ``occupancy``."""
        if self._victims is None:
            running = (other for other in self._ledger.occupied.values() if other not in self.releasing)
            self._victims = sorted(running, key=attrgetter("incarnation"))
        victim = self._victims[-1]
        if victim.incarnation <= occupancy.incarnation:
            return False
        self._victims.pop()
        self.release(victim)
        forecast.add(victim, victim.blocks[self._given_up.get(victim, 0) :])
        return True
