"""The table of the live requests, with the queue of those that wait for a slot.

The ledger changes it; the core and the plan builder read it.
"""

from __future__ import annotations

from albireo.contract.plan import MAX_BRANCHES, Finish, branch_names
from scheduler_svc.core.held_branches import HeldBranches
from scheduler_svc.core.queue import KeyedQueue
from scheduler_svc.core.request import Request


class RequestTable:
    """Each live request is in exactly one place: in ``waiting``, in ``held``, or it has an occupancy.

    ``ending`` and ``refused`` are what no log entry describes: the ends that the maker of the plans has
    decided, and that its next plan will announce. Until then a request that is ending keeps its place. A
    refused submission was never a request; a request of the same name may be live, and is another one.
    Written by the ledger only; the plan builder reads it.
    """

    def __init__(self) -> None:
        self.live: dict[str, Request] = {}  # by name, from submit until it ends
        self.waiting: KeyedQueue[Request] = KeyedQueue()  # for a slot
        self.held = HeldBranches()
        self.deadlines: KeyedQueue[Request] = KeyedQueue()  # of requests that are live and not ending
        self.ending: dict[str, Finish] = {}  # by name; live requests only, never with ERROR
        self._num_branches = 0  # live ones that are branches, whose names have a #
        self.refused: list[str] = []  # names that end with ERROR, in the order of their refusals

    def named(self, name: str) -> list[Request]:
        """The live request or branch of that name, and the live branches of the request of that name."""
        names = (name, *branch_names(name, MAX_BRANCHES)) if self._num_branches else (name,)
        return [request for name in names if (request := self.live.get(name))]

    def add(self, branches: list[Request], deadline: float | None) -> None:
        """All branches of a new request: the first waits for a slot, the others for its prefill."""
        for request in branches:
            self.live[request.name] = request
            self._num_branches += "#" in request.name
            if deadline is not None:
                self.deadlines.push(request, (deadline, request.order[1]))
        first, *others = branches
        self.waiting.push(first, first.order)
        self.held.hold(first, others)

    def requeue(self, request: Request) -> None:
        """A preempted request waits for a slot again, at its old place."""
        self.waiting.push(request, request.order)

    def prompt_computed(self, request: Request) -> None:
        """A plan contains the last chunk of the request's prefill: branches held for it join the queue."""
        for branch in self.held.pop(request):
            self.waiting.push(branch, branch.order)

    def remove(self, request: Request) -> None:
        """The request has ended."""
        del self.live[request.name]
        self._num_branches -= "#" in request.name
        self.ending.pop(request.name, None)
        self.deadlines.remove(request)
        self.waiting.remove(request)
        first = self.held.remove(request)
        if first is not None:
            self.waiting.push(first, first.order)
