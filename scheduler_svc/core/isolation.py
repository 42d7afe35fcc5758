"""The isolation of requests that may be what ends their groups: each runs alone in a group.

The placement asks it.
"""

from __future__ import annotations

from collections.abc import Mapping

from scheduler_svc.core.group_core import GroupCore
from scheduler_svc.core.pending import Pending
from scheduler_svc.core.request import Request
from scheduler_svc.core.request_table import RequestTable

GROUPS_OF_EACH = 4
"""One group of so many is kept for requests that run alone at most, so that the others have the rest."""


class Isolation:
    """Keeps groups for requests that are to run alone: a group that is kept takes no other request, and so
    runs empty. The least loaded that could hold the request is chosen."""

    def __init__(self, requests: RequestTable, groups: Mapping[Pending, GroupCore]) -> None:
        """``groups``: all that are there."""
        self._requests = requests
        self._groups = groups
        self._kept: dict[Request, GroupCore] = {}  # for requests in the queue

    def leave(self, group: GroupCore) -> None:
        """A group is there no more."""
        for request in [request for request, kept in self._kept.items() if kept is group]:
            del self._kept[request]

    def kept(self) -> list[tuple[Request, GroupCore]]:
        """The requests for which a group is kept. Groups are given up whose request is not in the queue any
        more, as it was placed or has ended."""
        if not self._kept:
            return []
        for request in [request for request in self._kept if request not in self._requests.queue]:
            pending = self._kept.pop(request).ledger.pending
            if pending.alone is request and request.group is not pending:
                pending.alone = None
                pending.touch()
        return list(self._kept.items())

    def keep_for(self, request: Request) -> GroupCore | None:
        """The group that is kept for a request from now on, or was before; None if it has to wait for one."""
        kept = self._kept.get(request)
        if kept is None and len(self._isolated()) < max(1, len(self._groups) // GROUPS_OF_EACH):
            fitting = [
                group
                for group in self._groups.values()
                if group.shape.max_model_len >= request.end and group.ledger.pending.alone is None
            ]
            if fitting:
                kept = min(fitting, key=_load)
                self._kept[request] = kept
                kept.ledger.pending.alone = request
        return kept

    def _isolated(self) -> list[GroupCore]:
        return [group for group in self._groups.values() if group.ledger.pending.alone is not None]


def _load(group: GroupCore) -> tuple[float, str]:
    requests = group.ledger.num_running + len(group.ledger.pending.placed)
    return requests * group.speed.step_seconds, group.name
