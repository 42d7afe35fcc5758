"""The open streams of this gateway, and which row of the results log belongs to which of them.

The results reader calls it for every entry, the ``Inference`` service for every request, and the watch when
streams must fail; all on the event loop.
"""

from __future__ import annotations

from typing import NamedTuple

from albireo.contract.codec import rows_of
from albireo.contract.plan import Finish
from albireo.telemetry import OFF, Telemetry
from albireo.telemetry.catalogue import STREAMS
from albireo.v1 import log_pb2 as log
from gateway.streams.branch import Branch
from gateway.streams.failures import CLOSED, REFUSED, Failure
from gateway.streams.stream import TokenStream


class Route(NamedTuple):
    """The branch that rows are given to, and its stream."""

    stream: TokenStream
    branch: Branch


class Router:
    """Streams by request id, branches by name, and rows by incarnation.

    Register a stream before its request is submitted, and bind it afterwards: its first rows may arrive, and
    its epoch may end, before the answer to the submission does. Results that arrive in between are kept. Once
    the epoch is known, those of that epoch are routed and the others dropped: an earlier epoch may have had a
    request of the same id.
    """

    def __init__(self, telemetry: Telemetry = OFF) -> None:
        self.epoch = 0
        """The epoch of the last entry that was read. Set by the results reader."""
        self._streams: dict[str, TokenStream] = {}  # by the ids of their records
        self._unbound: dict[TokenStream, list[tuple[int, log.StepResult]]] = {}  # epochs and results since
        self._routes: dict[str, Route] = {}  # by branch name, of bound streams
        self._row_routes: dict[int, Route] = {}  # by incarnation, in the current epoch
        telemetry.observe(STREAMS, self.__len__)

    def __len__(self) -> int:
        """How many streams are registered."""
        return len(self._streams)

    def register(self, stream: TokenStream) -> None:
        """Raises KeyError if this gateway already runs a stream of that request id."""
        record_id = stream.request.record_id
        if record_id in self._streams:
            raise KeyError(record_id)
        self._streams[record_id] = stream
        self._unbound[stream] = []

    def bind(self, stream: TokenStream, epoch: int) -> None:
        """The stream's request was accepted in ``epoch``."""
        stream.epoch = epoch
        routes = {name: Route(stream, branch) for name, branch in stream.branches.items()}
        rows: dict[int, Route] = {}
        for result_epoch, result in self._unbound.pop(stream):
            if result_epoch == epoch:
                _hand_out(epoch, result, routes, rows)
        self._routes |= routes
        if epoch < self.epoch:
            stream.fail(CLOSED)
        else:
            self._row_routes |= rows

    def remove(self, stream: TokenStream) -> None:
        """Idempotent."""
        self._streams.pop(stream.request.record_id, None)
        self._unbound.pop(stream, None)
        for name in stream.branches:
            self._routes.pop(name, None)
        self._row_routes = {
            row: route for row, route in self._row_routes.items() if route.stream is not stream
        }

    def unfinished(self) -> list[TokenStream]:
        """The streams that have a branch that has neither finished nor failed."""
        return [stream for stream in self._streams.values() if not stream.ended]

    def route(self, result: log.StepResult) -> None:
        """Gives a result of the current epoch to the branches that it is about."""
        for results in self._unbound.values():
            results.append((self.epoch, result))
        _hand_out(self.epoch, result, self._routes, self._row_routes)

    def open_epoch(self) -> None:
        """The current epoch has just begun: streams of earlier epochs fail; incarnations start again."""
        self._row_routes.clear()
        for stream in self._streams.values():
            if stream.epoch is not None and stream.epoch < self.epoch:
                stream.fail(CLOSED)

    def fail_epoch(self, failure: Failure) -> None:
        """Entries were lost, an opening of an epoch perhaps among them: all streams fail, and no incarnation
        that was seen before counts any more."""
        self._row_routes.clear()
        self.fail_all(failure)

    def fail_all(self, failure: Failure) -> None:
        for stream in self._streams.values():
            stream.fail(failure)


def _hand_out(epoch: int, result: log.StepResult, routes: dict[str, Route], rows: dict[int, Route]) -> None:
    """Gives ``routes`` what a result of ``epoch`` holds for them; admissions in it are added to ``rows``."""
    for admitted in result.admitted:
        route = routes.get(admitted.request_id)
        if route is not None and route.stream.epoch == epoch:
            rows[admitted.incarnation] = route
            route.branch.admit(admitted.num_cached)
    if rows:
        for prompt in result.prompt_logprobs:
            if prompt.incarnation in rows:
                rows[prompt.incarnation].stream.push_prompt(prompt.start, prompt.logprobs)
        logprobs = {row.row: row.logprobs for row in result.logprobs}
        for index, (_, incarnation, token, finish) in enumerate(zip(*rows_of(result), strict=True)):
            if incarnation in rows:
                rows[incarnation].branch.push(token, logprobs.get(index), finish)
    for ended in result.ended:
        route = routes.get(ended.request_id)
        if route is None or route.stream.epoch != epoch:
            continue
        reason = Finish(ended.reason)
        if reason is Finish.ERROR:
            route.stream.fail(REFUSED)
        else:
            route.branch.finish(reason)
