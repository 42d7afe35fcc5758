"""The open streams of one backend: gives each what the logs hold for it, and ends those whose epoch is over.

The results reader calls it for every entry, the ``Inference`` service for every request, and the watch when
streams must fail; all on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from albireo.v1 import log_pb2 as log
from gateway.streams.failures import CLOSED, Failure
from gateway.streams.route_table import RouteTable
from gateway.streams.stream import TokenStream

Entry = Callable[[RouteTable], None]
"""Gives an entry of a log to the streams of a table."""


class Router:
    """Streams by request id.

    Register a stream before its request is submitted, and bind it afterwards: its first rows may arrive, and
    its epoch may end, before the answer to the submission does. Entries that arrive in between are kept. Once
    the epoch is known, those of that epoch are routed and the others dropped: an earlier epoch may have had a
    request of the same id.
    """

    def __init__(self) -> None:
        self.epoch = 0
        """The last epoch that was seen in a log."""
        self._streams: dict[str, TokenStream] = {}  # by the ids of their records
        self._unbound: dict[TokenStream, list[tuple[int, Entry]]] = {}  # entries since, with their epochs
        self._table = RouteTable()  # of the bound streams

    def __len__(self) -> int:
        """How many streams are registered."""
        return len(self._streams)

    def __contains__(self, record_id: str) -> bool:
        """Whether a stream of the request with this record is registered."""
        return record_id in self._streams

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
        table = RouteTable()
        table.add(stream)
        for entry_epoch, give in self._unbound.pop(stream):
            if entry_epoch == epoch:
                give(table)
        if epoch < self.epoch:
            stream.fail(CLOSED)
        else:
            self._table.merge(table)

    def remove(self, stream: TokenStream) -> None:
        """Idempotent."""
        self._streams.pop(stream.request.record_id, None)
        self._unbound.pop(stream, None)
        self._table.remove(stream)

    def unfinished(self) -> list[TokenStream]:
        """The streams that have a branch that has neither finished nor failed."""
        return [stream for stream in self._streams.values() if not stream.ended]

    def result(self, group: str, epoch: int, result: log.StepResult) -> None:
        """Gives a result to the branches that it is about. ``group``: the group incarnation."""
        self._give(epoch, lambda table: table.result(group, epoch, result))

    def ended(self, epoch: int, ends: Iterable[log.Ended]) -> None:
        """Ends branches that waited; each once it has received the tokens that it had."""
        self._give(epoch, lambda table: table.ended(epoch, ends))

    def forget(self, group: str) -> None:
        """A group has been opened or closed: its occupancies count no more. Streams go on elsewhere."""
        self._table.forget(group)

    def open_epoch(self, epoch: int) -> None:
        """Streams of earlier epochs fail. Idempotent."""
        if epoch <= self.epoch:
            return
        self.epoch = epoch
        for stream in self._streams.values():
            if stream.epoch is not None and stream.epoch < epoch:
                stream.fail(CLOSED)

    def restart(self, epoch: int) -> None:
        """Reading begins anew in ``epoch``, which may be an earlier one; occupancies count no more."""
        self.epoch = epoch
        self._table.forget_all()

    def fail_all(self, failure: Failure) -> None:
        for stream in self._streams.values():
            stream.fail(failure)

    def _give(self, epoch: int, entry: Entry) -> None:
        for kept in self._unbound.values():
            kept.append((epoch, entry))
        entry(self._table)
