"""Which branch each row of a result belongs to. The router has one table of all streams whose epoch is known.

On the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable

from albireo.contract.plan import Finish
from albireo.contract.result_rows import rows_of
from albireo.v1 import log_pb2 as log
from gateway.streams.branch import Branch
from gateway.streams.failures import GROUPS_DIED, REFUSED
from gateway.streams.stream import TokenStream


class Route:
    """A branch, its stream, and where in the groups it has had slots."""

    __slots__ = ("branch", "latest", "occupancies", "stream")

    def __init__(self, stream: TokenStream, branch: Branch) -> None:
        self.stream = stream
        self.branch = branch
        self.latest: dict[str, Occupancy] = {}  # the last in each group, by the group's incarnation
        self.occupancies: list[tuple[str, int]] = []  # group and occupancy, by their incarnations


class Occupancy:
    """One stay of a branch in a slot of a group."""

    __slots__ = ("admission", "position", "route")

    def __init__(self, route: Route, admitted: log.Admitted) -> None:
        self.route = route
        self.position = admitted.num_outputs  # of its next row in the answer
        self.admission = route.branch.admit(admitted.num_outputs, admitted.num_cached)


class RouteTable:
    """Branches by name, and those of rows by group and occupancy. Groups are named by their incarnations."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._rows: dict[str, dict[int, Occupancy]] = {}

    def add(self, stream: TokenStream) -> None:
        for name, branch in stream.branches.items():
            self._routes[name] = Route(stream, branch)

    def merge(self, other: RouteTable) -> None:
        """Adds what another table, of other streams, holds."""
        self._routes |= other._routes
        for group, rows in other._rows.items():
            self._rows.setdefault(group, {}).update(rows)

    def remove(self, stream: TokenStream) -> None:
        """Idempotent."""
        for name in stream.branches:
            route = self._routes.pop(name, None)
            for group, incarnation in route.occupancies if route is not None else ():
                self._remove_row(group, incarnation, route)

    def forget(self, group: str) -> None:
        """The occupancies of a group count no more, and their incarnations may be used again."""
        self._rows.pop(group, None)

    def forget_all(self) -> None:
        self._rows.clear()

    def result(self, group: str, epoch: int, result: log.StepResult) -> None:
        """Gives what a result of a group holds to the branches that it is about."""
        for admitted in result.admitted:
            route = self._routes.get(admitted.request_id)
            if route is not None and route.stream.epoch == epoch:
                self._admit(route, group, admitted)
        if rows := self._rows.get(group):
            _hand_out(result, rows)
        for ended in result.ended:
            route = self._routes.get(ended.request_id)
            if route is not None and route.stream.epoch == epoch:
                occupancy = route.latest.get(group)
                _end(route, ended, occupancy.position if occupancy is not None else 0)

    def ended(self, epoch: int, ends: Iterable[log.Ended]) -> None:
        """Requests ended while they waited."""
        for ended in ends:
            route = self._routes.get(ended.request_id)
            if route is not None and route.stream.epoch == epoch:
                _end(route, ended, ended.num_outputs)

    def _admit(self, route: Route, group: str, admitted: log.Admitted) -> None:
        occupancy = Occupancy(route, admitted)
        route.latest[group] = occupancy
        route.occupancies.append((group, admitted.incarnation))
        self._rows.setdefault(group, {})[admitted.incarnation] = occupancy

    def _remove_row(self, group: str, incarnation: int, route: Route | None) -> None:
        rows = self._rows.get(group, {})
        occupancy = rows.get(incarnation)
        if occupancy is not None and occupancy.route is route:  # not one of a later epoch
            del rows[incarnation]
            if not rows:
                del self._rows[group]


def _hand_out(result: log.StepResult, rows: dict[int, Occupancy]) -> None:
    for incarnation in result.unfetched:
        occupancy = rows.get(incarnation)
        # A streamed one may have come far with what was cached before it lacks anything.
        if occupancy is not None and occupancy.position == occupancy.admission.position:
            occupancy.route.branch.unfetched(occupancy.admission)
    for prompt in result.prompt_logprobs:
        if prompt.incarnation in rows:
            rows[prompt.incarnation].route.stream.push_prompt(prompt.start, prompt.logprobs)
    streamed = result.streamed[:]
    logprobs = {row.row: row.logprobs for row in result.logprobs}
    for index, (_, incarnation, token, finish) in enumerate(zip(*rows_of(result), strict=True)):
        occupancy = rows.get(incarnation)
        if occupancy is not None:
            position = occupancy.position
            occupancy.position = position + 1
            branch = occupancy.route.branch
            if branch.push(position, token, logprobs.get(index), finish) and incarnation in streamed:
                branch.streamed.add()


def _end(route: Route, ended: log.Ended, after: int) -> None:
    """The scheduler has ended a branch, which has ``after`` tokens by then."""
    reason = Finish(ended.reason)
    if reason is not Finish.ERROR:
        route.branch.finish(reason, after=after)
    elif any(branch.admitted for branch in route.stream.branches.values()):
        route.branch.finish(GROUPS_DIED, after=after)
    else:
        route.stream.fail(REFUSED)
