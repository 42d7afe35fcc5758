"""What the next plan of a group is to do about requests, and what no log says yet.

The request table, the placement and the ledger change it; the plan builder carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from scheduler_svc.core.request import Request


class Claim(NamedTuple):
    """What the admission of a request takes of a group."""

    tokens: int  # that it computes before it samples
    blocks: int  # free ones


class Changes:
    """The groups that have changed since two readers have looked at them."""

    def __init__(self) -> None:
        self.to_plan: dict[Pending, None] = {}  # their next plan may have something to do
        self.to_place: dict[Pending, None] = {}  # their room may be another one
        self.timed: dict[Pending, float] = {}  # when a plan may have something to do though nothing changes

    def expire(self, now: float) -> None:
        """Notes the groups whose time has come."""
        for pending in [pending for pending, then in self.timed.items() if then <= now]:
            del self.timed[pending]
            self.to_plan[pending] = None


@dataclass(slots=True, eq=False)
class Pending:
    """The requests that are placed on a group, and those of its own that are to end. A request refers to the
    one of the group where it is placed or has an occupancy."""

    changes: Changes  # of all groups
    placed: dict[Request, Claim] = field(default_factory=dict)  # to be admitted, in this order
    ending: dict[Request, None] = field(default_factory=dict)  # they have an occupancy here
    alone: Request | None = None  # the group takes no other request while this one is coming or running

    def touch(self) -> None:
        """The group's state has changed."""
        self.changes.to_plan[self] = self.changes.to_place[self] = None

    def place(self, request: Request, claim: Claim) -> None:
        """The next plan is to admit a request."""
        self.placed[request] = claim
        request.group = self
        self.touch()

    def end(self, request: Request) -> None:
        """The next plan is to end a request that has an occupancy here."""
        self.ending[request] = None
        self.touch()

    def end_isolation(self) -> None:
        """The group takes others again once the request that runs alone has shown that it does not end it."""
        alone = self.alone
        if alone is not None and alone.occupancy is not None and alone.occupancy.progressed:
            alone.deaths = 0
            self.alone = None

    def forget(self, request: Request) -> None:
        """A request is not here any more."""
        self.placed.pop(request, None)
        self.ending.pop(request, None)
        if self.alone is request:
            self.alone = None
        request.group = None
        self.touch()
