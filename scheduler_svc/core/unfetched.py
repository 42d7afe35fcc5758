"""The slots of a step for which KV that a tier should have brought is missing.

The ledger makes it and calls it.
"""

from __future__ import annotations

from albireo.contract.plan import Finish, GroupShape
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.limits import is_long
from scheduler_svc.core.occupancies import Occupancies
from scheduler_svc.core.request import MOST_MISSES, Occupancy, Phase
from scheduler_svc.core.request_table import RequestTable
from scheduler_svc.core.step_in_flight import StepInFlight
from scheduler_svc.core.tier_ledger import TierLedger


class Unfetched:
    """Takes what the group reports of them: nothing that was computed from then on counts."""

    def __init__(
        self, shape: GroupShape, slots: Occupancies, tiers: TierLedger, requests: RequestTable
    ) -> None:
        self._shape = shape
        self._slots = slots
        self._tiers = tiers
        self._requests = requests

    def drop(self, step: StepInFlight, incarnations: frozenset[int]) -> None:
        """A step has run slots without what they read: their requests wait again. Slots and blocks are
        released by the next plan, as those of requests that have finished. Raises ProtocolError for a slot
        that reads nothing in the step."""
        fetching = (occupancy for occupancy, _ in step.chunks if occupancy.fetching is not None)
        for occupancy in (*fetching, *step.spans):
            if occupancy.incarnation in incarnations and not occupancy.unfetched:
                self._drop(occupancy)
        if not incarnations.isdisjoint(self._slots.receiving):
            raise ProtocolError(f"step {step.step} lacks blocks for slots for which it fetched none")

    def _drop(self, occupancy: Occupancy) -> None:
        self._tiers.failed(occupancy)
        if occupancy.phase is not Phase.RELEASED:
            self._slots.move(occupancy, Phase.FINISHED)
        if occupancy.request.occupancy is occupancy:
            self._slots.stop_receiving(occupancy)
            self._requests.requeue(occupancy.request)
            if occupancy.streaming is not None:
                self._count(occupancy)

    def count_lost(self, keys: set[bytes]) -> None:
        """Frames hold nothing after all: also those that blocks were to leave their slots for."""
        for occupancy in self._slots.receiving.values() if keys else ():
            if self._next_key(occupancy) in keys:
                self._count(occupancy)

    def _next_key(self, occupancy: Occupancy) -> bytes | None:
        """Of the block that is the next to leave a slot which does not fit; None if there is none."""
        long = is_long(self._shape, max(occupancy.prefill, occupancy.scheduled + 1))
        if occupancy.streamed < occupancy.registered and (occupancy.streaming is not None or long):
            return occupancy.request.key(occupancy.streamed)
        return None

    def _count(self, occupancy: Occupancy) -> None:
        """A disk that is full takes nothing of a request that does not fit without it: it must end."""
        request = occupancy.request
        request.misses += 1
        if occupancy.settled > request.reached:
            request.reached, request.misses = occupancy.settled, 1
        if request.misses > MOST_MISSES:
            self._requests.schedule_end(request, Finish.ERROR)
