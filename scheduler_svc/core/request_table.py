"""The table of the live requests of all groups, with the queue of those that wait for a slot.

The core, the placement and the ledgers of all groups change it; the plan builder reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from albireo.contract.plan import MAX_BRANCHES, Finish, branch_names
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.fair_queue import FairQueue
from scheduler_svc.core.held_branches import HeldBranches
from scheduler_svc.core.pending import Claim, Pending
from scheduler_svc.core.queue import KeyedQueue
from scheduler_svc.core.request import Request
from scheduler_svc.core.service_shares import ServiceShares
from scheduler_svc.core.tally import TenantTally
from scheduler_svc.core.waiting_end import WaitingEnd

CHARGE_STEPS = 64
"""Steps of a group from one charge of the outputs to the next. A request is charged at its end, too."""


class RequestTable:
    """Each live request is in exactly one place: in ``queue``, in ``held``, placed on a group, or it has an
    occupancy in one.

    No log entry describes where a request is placed, nor the ends that the maker of the plans has decided and
    not announced: ``Request.ending``, and ``refused``. A request that is ending keeps its place until then.
    If it has an occupancy, the next plan of its group announces it, else :meth:`take_ended`. A refused
    submission was never a request; a request of the same name may be live, and is another one. An end that a
    plan has announced is announced again, by :meth:`take_ended`, where the group died before its result did
    so.
    """

    def __init__(self, *, prefill_weight: float = 1.0, decode_weight: float = 2.0) -> None:
        """The weights: service that a tenant is charged for a computed token of a prompt, and for an
        output."""
        self._prefill_weight = prefill_weight
        self._decode_weight = decode_weight
        self.live: dict[str, Request] = {}  # by name, from submit until it ends
        self.queue = FairQueue(prefill_weight=prefill_weight)  # for a slot of any group
        self.shares = ServiceShares()
        self.held = HeldBranches()
        self.deadlines: KeyedQueue[Request] = KeyedQueue()  # of requests that are live and not ending
        self.ending: dict[Request, None] = {}  # those without an occupancy
        self.refused: list[str] = []  # names that end with ERROR, in the order of their refusals
        self.lost: list[WaitingEnd] = []  # ends in plans that no result has repeated, nor will
        self.departures = 0  # of requests from the waiting state, since they were last taken
        self.tallies: dict[str, TenantTally] = {}  # by tenant, likewise
        self.isolates = False  # whether a request has had to run alone
        self.sole: Pending | None = None  # of the only group, if it can hold every request
        self._num_branches = 0  # live ones that are branches, whose names have a #

    def named(self, name: str) -> list[Request]:
        """The live request or branch of that name, and the live branches of the request of that name."""
        names = (name, *branch_names(name, MAX_BRANCHES)) if self._num_branches else (name,)
        return [request for name in names if (request := self.live.get(name))]

    def add(self, branches: list[Request], deadline: float | None) -> None:
        """All branches of a new request: the first waits for a slot, the others for its prefill."""
        for request in branches:
            self.live[request.name] = request
            self.shares.enter(request.submission.tenant)
            self._num_branches += "#" in request.name
            if deadline is not None:
                self.deadlines.push(request, (deadline, request.order[1]))
        first, *others = branches
        self.queue.push(first)
        self.held.hold(first, others)

    # -- ends ----------------------------------------------------------------------------------------

    def schedule_end(self, request: Request, reason: Finish) -> None:
        """A live request is to end, unless it finishes before. The first reason counts."""
        self.deadlines.remove(request)
        if request.ending:
            return
        self.count_departure(request)
        request.ending = reason
        if request.occupancy is not None and request.group is not None:
            request.group.end(request)
            return
        if request.group is not None:
            self.give_back(request)
        self.ending[request] = None

    def fail_branches(self, request: Request) -> None:
        """A request has ended too many groups. With it the branches of the same prompt end that have brought
        nothing since: each would end as many."""
        for branch in request.family or (request,):
            if self.live.get(branch.name) is branch and (branch.deaths or not branch.admitted):
                self.schedule_end(branch, Finish.ERROR)

    def refuse(self, names: tuple[str, ...], tenant: str) -> None:
        """A submission that was never live is to end with ERROR, as all its branches."""
        self.refused += names
        self.departures += len(names)
        tally = self._tally(tenant)
        tally.departed += len(names)
        tally.ended += len(names)

    def expire(self, now: float) -> None:
        """Ends every request whose deadline has come with DEADLINE, wherever it is."""
        while (first := self.deadlines.peek()) and first[0][0] <= now:
            self.schedule_end(first[1], Finish.DEADLINE)

    def take_ended(self) -> tuple[WaitingEnd, ...]:
        """Ends the requests without an occupancy whose end is decided, and refused submissions; announces
        ends that were lost with their group."""
        ended = [WaitingEnd(request.name, request.ending, request.num_outputs) for request in self.ending]
        ended += [WaitingEnd(name, Finish.ERROR, 0) for name in self.refused]
        ended += self.lost
        for request in list(self.ending):
            self.remove(request)
        self.refused.clear()
        self.lost.clear()
        return tuple(ended)

    def apply_ended(self, ended: WaitingEnd) -> None:
        """An end that another core has handed out. Raises ProtocolError if it does not fit the state.

        With ERROR it is one of a refused submission, or of a request that has ended so here as well."""
        if ended in self.lost:
            self.lost.remove(ended)
            return
        request = self.live.get(ended.request_id)
        if ended.reason is Finish.ERROR:
            if ended.request_id in self.refused:
                self.refused.remove(ended.request_id)
                return
            if request is None or not request.ending:  # it was refused before this core followed
                return
        if request is None or request.occupancy is not None:
            raise ProtocolError(f"{ended.request_id} is ended and does not wait")
        if request.num_outputs != ended.num_outputs:
            raise ProtocolError(f"{request.name} is ended with {ended.num_outputs} outputs and has others")
        self.count_departure(request)
        self.remove(request)

    def remove(self, request: Request) -> None:
        """The request has ended."""
        del self.live[request.name]
        self._num_branches -= "#" in request.name
        self.charge_outputs(request)
        self._tally(request.submission.tenant).ended += 1
        self.shares.leave(request.submission.tenant)
        if request.group is not None:
            request.group.forget(request)
        self.ending.pop(request, None)
        self.deadlines.remove(request)
        self.queue.remove(request)
        first = self.held.remove(request)
        if first is not None:
            self.queue.push(first)
        request.family = ()  # which contains it: no cycle stays for the garbage collector

    # -- places --------------------------------------------------------------------------------------

    def waiting(self) -> Iterator[Request]:
        """All that have no occupancy, held branches included."""
        return (request for request in self.live.values() if request.occupancy is None)

    def waits(self, request: Request) -> bool:
        """Whether it can be admitted: it is in the queue, or placed on a group."""
        return request in self.queue or (request.group is not None and request.occupancy is None)

    def leaves_slots(self, request: Request) -> bool:
        """Whether a request that waits leaves the last slots of groups to others: its tenant is beyond its
        share, and it has held no slot yet."""
        return self.shares.exceeds(request.submission.tenant) and not self.queue.has_returned(request)

    def candidates(self, pending: Pending, is_open: Callable[[], bool]) -> Iterator[Request]:
        """What a plan of a group may admit, in this order: the requests that are placed there, and if it is
        ``sole``, those that wait. The one that came last may be admitted on the way. ``is_open`` says whether
        there are slots for tenants beyond their share."""
        yield from list(pending.placed)
        if pending is not self.sole or pending.alone is not None:
            return
        for request in self.queue.in_order():
            if request.runs_alone:
                return
            if not is_open() and self.leaves_slots(request):
                break
            if not request.ending:
                yield request
        for request in self.queue.in_order(without=self.shares.exceeds):
            if request.runs_alone:
                return
            if not request.ending:
                yield request

    def place(self, request: Request, pending: Pending, claim: Claim) -> None:
        """The next plan of a group is to admit a request that is in the queue."""
        self.queue.remove(request)
        pending.place(request, claim)

    def give_back(self, request: Request) -> None:
        """A request that was placed waits in the queue again."""
        if request.group is not None:
            request.group.forget(request)
        self.queue.push_front(request)

    def admit(self, request: Request, pending: Pending, *, num_cached: int) -> bool:
        """A waiting request gets an occupancy in a group, wherever it was placed. True if it is its first
        one: then it has left the queue, and its tenant is charged for the tokens that are computed."""
        if request.group is not None:
            request.group.forget(request)
        else:
            self.queue.remove(request)
        request.group = pending
        if request.ending:
            del self.ending[request]
            pending.end(request)
        if request.admitted:
            return False
        self.count_departure(request)
        tokens = len(request.tokens)
        self._charge(request.submission.tenant, self._prefill_weight * (tokens - num_cached))
        request.charged = tokens
        request.admitted = True
        return True

    def requeue(self, request: Request) -> None:
        """A request that has lost its occupancy waits for a slot again."""
        if request.group is not None:
            request.group.forget(request)
        self.queue.push_front(request)
        if request.ending:
            self.ending[request] = None

    def prompt_computed(self, request: Request) -> None:
        """A plan contains the last chunk of the request's prefill: branches held for it join the queue."""
        for branch in self.held.pop(request):
            self.queue.push(branch)

    # -- counts --------------------------------------------------------------------------------------

    def count_departure(self, request: Request) -> None:
        """Counts a request that is admitted or ending for the first time."""
        if not request.admitted and not request.ending:
            self.departures += 1
            self._tally(request.submission.tenant).departed += 1

    def charge_outputs(self, request: Request) -> None:
        """Charges the tenant for the outputs that have settled since it was charged last."""
        outputs = len(request.tokens) - request.charged
        if outputs and request.admitted:
            request.charged += outputs
            self._tally(request.submission.tenant).outputs += outputs
            self._charge(request.submission.tenant, self._decode_weight * outputs)

    def _charge(self, tenant: str, service: float) -> None:
        self.queue.charge(tenant, service)
        self.shares.charge(tenant, service)
        self._tally(tenant).service += service

    def _tally(self, tenant: str) -> TenantTally:
        found = self.tallies.get(tenant)
        if found is None:
            found = self.tallies[tenant] = TenantTally()
        return found
