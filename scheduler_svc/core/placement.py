"""The placement: which group a waiting request goes to.

The core calls it before plans are made.
"""

from __future__ import annotations

from collections.abc import Mapping

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from scheduler_svc.core.group_core import GroupCore
from scheduler_svc.core.isolation import Isolation
from scheduler_svc.core.pending import Changes, Claim, Pending
from scheduler_svc.core.prefix import claim, lends, prefix_blocks, shareable
from scheduler_svc.core.prefix_directory import PrefixDirectory
from scheduler_svc.core.request import Request
from scheduler_svc.core.request_table import RequestTable
from scheduler_svc.core.room import Room, room_of

LOAD_SLACK = 1.1
"""Times the least load that a group may have, apart from one request, to get the next one."""
LOOK_BEHIND = 16
"""Requests that may find no room in one round before the others wait for the next."""

Rooms = dict[GroupCore, Room]


class Placement:
    """Places waiting requests on groups that have a slot, tokens of the next step and blocks for them.

    Requests come in the order of the queue. Of the groups with room for one, those count whose load (requests
    that run or are placed, and this one, times the seconds of a step) is at most LOAD_SLACK times the least,
    apart from one request; of these the one with the least expected time to first token: the tokens of
    prompts that wait there and those of this one that no cache has, and a step. This is the balance between
    prefix hits and load of Preble (Srivatsa et al., ICLR 2025), on speeds that are measured.

    Where no group has room for a request, all that could ever hold it are kept for it in this round; later
    requests may go to the others. So no request waits for ever behind smaller ones.

    The room of a group is found anew when its state has changed. A request costs a loop over the groups with
    room, and one walk along its prefix.
    """

    def __init__(
        self,
        requests: RequestTable,
        directory: PrefixDirectory,
        groups: Mapping[Pending, GroupCore],
        changes: Changes,
    ) -> None:
        """``groups``: all that are there; it changes as they join and leave."""
        self._groups = groups
        self._requests = requests
        self._changes = changes
        self._directory = directory
        self._rooms: Rooms = {}
        self._isolation = Isolation(requests, groups)

    def leave(self, group: GroupCore) -> None:
        """A group is there no more."""
        self._rooms.pop(group, None)
        self._isolation.leave(group)

    def place(self) -> None:
        """Places what can be placed now."""
        queue = self._requests.queue
        if not len(queue):
            return
        self._isolation.clean()
        self._look_at_changes()
        rooms, missed, may_keep = self._rooms, 0, True
        for request in queue.in_order():
            if request.ending:
                continue
            if request.runs_alone:
                may_keep = self._place_alone(request, may_keep=may_keep)
                continue
            if not rooms or missed > LOOK_BEHIND:
                break
            hits = self._hits(request)
            room = self._choose(request, rooms, hits)
            if room is None:
                missed += 1
                rooms = {group: other for group, other in rooms.items() if other.longest < request.end}
            elif self._hand_over(request, room, hits):
                rooms.pop(room.group)
                self._rooms.pop(room.group, None)

    def _look_at_changes(self) -> None:
        changed = self._changes.to_place
        for pending in changed:
            group = self._groups.get(pending)
            room = room_of(group) if group else None
            if group and room:
                self._rooms[group] = room
            elif group:
                self._rooms.pop(group, None)
        changed.clear()

    def _place_alone(self, request: Request, *, may_keep: bool) -> bool:
        """Places a request that runs alone if its group has run empty. False if no group can be kept for it,
        so that none can for another either."""
        group = self._isolation.group_for(request, may_keep=may_keep)
        if group is None:
            return False
        self._rooms.pop(group, None)
        if not group.ledger.receiving and not group.ledger.pending.placed:
            pending = group.ledger.pending
            self._requests.place(request, pending, claim(group.ledger, request, []))
            pending.alone = request
        return may_keep

    def _hits(self, request: Request) -> dict[int, int]:
        """Blocks of the request's prefix that need not be computed, by the bit of the group."""
        if request.needs_prompt_logprobs:
            return {}
        hits = self._directory.cached_blocks(request)
        if request.family:
            full = shareable(request)
            for branch in request.family:
                if branch.occupancy and branch.group and lends(branch.occupancy, full):
                    hits[branch.group.bit] = max(full, hits.get(branch.group.bit, 0))
        return hits

    def _choose(self, request: Request, rooms: Rooms, hits: dict[int, int]) -> Room | None:
        """The best group with room for a request."""
        tokens, end = len(request.tokens), request.end
        total = blocks_for(tokens)
        fitting = [
            room
            for room in rooms.values()
            if room.longest >= end
            and (room.blocks >= total or (room.bit in hits and _fits_by_prefix(request, room)))
        ]
        if not fitting:
            return None
        bound = LOAD_SLACK * min([room.load for room in fitting])
        best, least = None, 0.0
        for room in fitting:
            if room.load - room.step > bound:
                continue
            seconds = room.delay + (tokens - BLOCK_SIZE * hits.get(room.bit, 0)) * room.token
            if best is None or seconds < least or (seconds == least and _is_before(room, best)):
                best, least = room, seconds
        return best

    def _hand_over(self, request: Request, room: Room, hits: dict[int, int]) -> bool:
        """Whether the group has no room left."""
        ledger = room.group.ledger
        if room.bit in hits:
            claimed = claim(ledger, request, prefix_blocks(ledger, request))
        else:
            claimed = Claim(len(request.tokens), blocks_for(len(request.tokens)))
        self._requests.place(request, ledger.pending, claimed)
        room.take(claimed)
        return room.full


def _fits_by_prefix(request: Request, room: Room) -> bool:
    ledger = room.group.ledger
    return room.blocks >= claim(ledger, request, prefix_blocks(ledger, request)).blocks


def _is_before(room: Room, other: Room) -> bool:
    return (room.load, room.group.name) < (other.load, other.group.name)
