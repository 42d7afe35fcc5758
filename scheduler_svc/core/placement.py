"""The placement: which group a waiting request goes to.

The core calls it before plans are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from scheduler_svc.core.capacity import Capacity, capacity_of
from scheduler_svc.core.group_core import GroupCore
from scheduler_svc.core.isolation import Isolation
from scheduler_svc.core.pending import Changes, Pending
from scheduler_svc.core.prefix import NO_PREFIX, PrefixLengths, lending_groups, shareable
from scheduler_svc.core.request import Request
from scheduler_svc.core.request_table import RequestTable
from scheduler_svc.core.speed import Slowdowns

LOAD_SLACK = 1.1
"""Times the least load that a group may have, apart from one request, to get the next one."""
LOOK_BEHIND = 16
"""Requests that may find no capacity in one round before the others wait for the next."""

Capacities = dict[GroupCore, Capacity]


class Placement:
    """Hands waiting requests to groups that have a slot, tokens of the next step and blocks for them.

    Requests come in the order of the queue. Of the groups with capacity for one, those count whose load
    (requests that run or are placed, and this one, times the seconds of a step) is at most LOAD_SLACK times
    the least, apart from one request; of these the one with the least expected time to first token: the
    tokens of prompts that wait there and those of this one that no cache has, and a step. This is the balance
    between prefix hits and load of Preble (Srivatsa et al., ICLR 2025), on speeds that are measured.

    Where no group has capacity for a request, all that could ever hold it are kept for it in this round;
    later requests may go to the others. So no request waits for ever behind smaller ones. One that is longer
    than any group that is there takes is set aside until another joins, so that none waits behind it.
    Tenants beyond their share get the slots that a group has for all (``Limits.open_to_all``).

    It is found anew when its state has changed. A request costs a loop over the groups with
    capacity, and one walk along its prefix.
    """

    def __init__(
        self,
        requests: RequestTable,
        groups: Mapping[Pending, GroupCore],
        changes: Changes,
    ) -> None:
        """``groups``: all that are there; it changes as they join and leave."""
        self._groups = groups
        self._requests = requests
        self._changes = changes
        self._capacities: Capacities = {}
        self._isolation = Isolation(requests, groups)
        self._slowdowns = Slowdowns()
        self._longest = 0  # the largest max_model_len of the groups that are there

    def join(self, group: GroupCore) -> None:
        """A group is there."""
        group.speed.compare(self._slowdowns)
        self._longest = max(self._longest, group.shape.max_model_len)
        self._requests.queue.recall()

    def leave(self, group: GroupCore) -> None:
        """A group is there no more."""
        self._capacities.pop(group, None)
        self._isolation.leave(group)
        self._longest = max([other.shape.max_model_len for other in self._groups.values()], default=0)

    def place(self) -> None:
        """Hands over what can be placed now."""
        queue = self._requests.queue
        if not len(queue) or not self._groups:
            return
        for request, group in self._isolation.kept():
            self._place_alone(request, group)
        sole = self._requests.sole
        if sole is not None and sole.alone is None and not self._first_runs_alone():
            sole.touch()
            return
        self._look_at_changes()
        if not (self._capacities or self._requests.isolates):
            return
        if not self._place_in(queue.in_order()):
            self._place_in(queue.in_order(without=self._requests.shares.exceeds))

    def _place_in(self, requests: Iterator[Request]) -> bool:
        """Hands over what can be placed. False if it came to a request whose tenant is beyond its share, and
        that found no capacity."""
        capacities, missed, may_keep = self._capacities, 0, True
        for request in requests:
            if request.ending:
                continue
            if request.end > self._longest:
                self._requests.queue.set_aside(request)
                continue
            if request.runs_alone:
                may_keep = may_keep and self._keep_group(request)
                capacities = {
                    group: other for group, other in capacities.items() if group in self._capacities
                }
                continue
            if not capacities or missed > LOOK_BEHIND:
                break
            beyond = self._requests.leaves_slots(request)
            capacity = self._choose(request, capacities, beyond=beyond)
            if capacity is None and beyond:
                return False
            if capacity is None:
                missed += 1
                capacities = {
                    group: other for group, other in capacities.items() if other.longest < request.end
                }
            elif self._hand_over(request, capacity):
                capacities.pop(capacity.group)
                self._capacities.pop(capacity.group, None)
                if not (capacities or self._requests.isolates):
                    break
        return True

    def _first_runs_alone(self) -> bool:
        return self._requests.isolates and next(self._requests.queue.in_order()).runs_alone

    def _look_at_changes(self) -> None:
        changed = self._changes.to_place
        for known in self._capacities:
            if known.speed.is_guess:  # it changes with the steps of others
                changed[known.ledger.pending] = None
        for pending in changed:
            group = self._groups.get(pending)
            if group is None:
                continue
            capacity = capacity_of(group)
            if capacity is None:
                self._capacities.pop(group, None)
            else:
                self._capacities[group] = capacity
        changed.clear()

    def _keep_group(self, request: Request) -> bool:
        """Keeps a group for a request that runs alone. False if there is none to keep."""
        group = self._isolation.keep_for(request)
        if group is None:
            return False
        self._capacities.pop(group, None)
        self._place_alone(request, group)
        return True

    def _place_alone(self, request: Request, group: GroupCore) -> None:
        """Hands over a request that runs alone if the group that is kept for it has run empty."""
        pending = group.ledger.pending
        ledger = group.ledger
        if not (ledger.receiving or pending.placed or request.ending or ledger.tiers.unknown):
            self._requests.place(request, pending, group.streams.claim(request, NO_PREFIX))
            pending.alone = request

    def _choose(self, request: Request, capacities: Capacities, *, beyond: bool) -> Capacity | None:
        """The best group with capacity for a request. ``beyond``: its tenant is beyond its share."""
        tokens, end = len(request.tokens), request.end
        total = blocks_for(tokens)
        fitting = [
            capacity
            for capacity in capacities.values()
            if capacity.longest >= end
            and (not beyond or capacity.open)
            and (capacity.blocks >= total or _fits(request, capacity))
            and capacity.group.streams.has_frames(request)
        ]
        if len(fitting) <= 1:
            return fitting[0] if fitting else None
        bound = LOAD_SLACK * min([capacity.next_load for capacity in fitting])
        lengths, lenders = PrefixLengths(request), lending_groups(request)
        first, best, least = lengths.first, fitting[0], float("inf")
        for capacity in fitting:
            if capacity.load > bound:
                continue
            seconds = capacity.delay + tokens * capacity.token
            if first in capacity.cached or lenders:
                cached = lengths.of(capacity.cached) if first in capacity.cached else 0
                if capacity.group.ledger.pending in lenders:
                    cached = max(cached, shareable(request))
                seconds = capacity.delay + (tokens - BLOCK_SIZE * cached) * capacity.token
            if seconds < least or (seconds == least and _is_before(capacity, best)):
                best, least = capacity, seconds
        return best

    def _hand_over(self, request: Request, capacity: Capacity) -> bool:
        """Whether the group has no capacity left."""
        rules = capacity.group.streams
        claimed = rules.claim(request, rules.find_prefix(request, capacity.tiers))
        self._requests.place(request, capacity.group.ledger.pending, claimed)
        capacity.take(claimed)
        return capacity.full


def _fits(request: Request, capacity: Capacity) -> bool:
    """Whether it does with the prefix that it has there, or since it is streamed."""
    rules = capacity.group.streams
    prefix = rules.find_prefix(request, capacity.tiers)
    return capacity.blocks >= rules.claim(request, prefix).blocks


def _is_before(capacity: Capacity, other: Capacity) -> bool:
    return (capacity.load, capacity.group.name) < (other.load, other.group.name)
