"""Readers of what a scheduler and its groups have written, as a gateway reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from albireo.contract import codec, result_rows
from albireo.contract.keys import Keys
from albireo.contract.plan import Finish, public_name
from albireo.store.interface import EntryId, LogEntry
from albireo.v1 import log_pb2 as log
from tests.races.cluster import Cluster


@dataclass
class Story:
    """What a reader has seen of one request."""

    ids: list[int] = field(default_factory=list)
    final: Finish = Finish.NONE


class _Seen:
    """Rows of one request by their position in its stream, and its end."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        self.final = Finish.NONE
        self.length = 0  # tokens that it has at least, by a notice of its end

    def push(self, position: int, token: int, finish: Finish) -> None:
        assert position not in self.rows, f"token {position} comes twice"
        assert not self.final, "a row after the end"
        self.rows[position] = token
        self.final = finish

    def story(self) -> Story:
        """Raises AssertionError where a token is missing, or comes after the end."""
        ids = [self.rows[position] for position in range(len(self.rows))]
        assert len(ids) >= self.length
        return Story(ids, self.final)


class Reader:
    """Folds notices and the results of all groups: the first end that is read counts, no row may follow it,
    and each token of a request comes once, whichever group brings it."""

    def __init__(self, cluster: Cluster, keys: Keys) -> None:
        self._keys = keys
        self._store = cluster.open_store(keys)
        self._after = {keys.notices: self._store.log(keys.notices).last()}
        self._seen: dict[str, _Seen] = {}
        self._rows: dict[
            tuple[str, int], tuple[_Seen, int]
        ] = {}  # by log and incarnation: with next position
        self.opened: list[log.GroupOpen] = []
        self.closed: list[log.GroupClosed] = []

    def read(self) -> None:
        """Takes in what has come since: of what is read at once results first, as the group that brought the
        earlier tokens wrote its last before the next one began."""
        while found := self._store.read(self._after, 0):
            notices = found.pop(self._keys.notices, [])
            self._results(found)
            for raw_id, data in notices:
                self._after[self._keys.notices] = raw_id.decode()
                self._notice(EntryId.parse(raw_id), log.Notice.FromString(data))

    def story(self, name: str) -> Story:
        """What has been read of a request."""
        return self._seen[name].story() if name in self._seen else Story()

    def forget(self, group: str, incarnation: int) -> None:
        """Rows of this incarnation that come from now on are none of a worker's: nothing is known of them."""
        del self._rows[self._keys.results(group), incarnation]

    def _notice(self, entry_id: EntryId, notice: log.Notice) -> None:
        kind = notice.WhichOneof("entry")
        if kind == "open":  # what earlier epochs have not ended is given up
            self._after = {self._keys.notices: str(entry_id)}
            self._rows.clear()
            self._seen = {name: seen for name, seen in self._seen.items() if seen.final}
        elif kind == "group_open":
            self.opened.append(notice.group_open)
            results = self._keys.results(notice.group_open.group)
            self._after[results] = f"{entry_id.epoch}-0"
            self._results(self._store.read({results: self._after[results]}, 0))  # before later notices
        elif kind == "group_closed":
            self.closed.append(notice.group_closed)
        else:
            self._end(notice.ended.ended, by_notice=True)

    def _results(self, found: Mapping[str, list[LogEntry]]) -> None:
        for key, entries in found.items():
            for raw_id, data in entries:
                self._after[key] = raw_id.decode()
                with suppress(ValueError):  # a test has written it; the group is closed
                    self._result(key, codec.result_from_bytes(data))

    def _result(self, key: str, entry: log.ResultEntry) -> None:
        result = entry.result
        for admitted in result.admitted:
            seen = self._seen.setdefault(public_name(admitted.request_id), _Seen())
            self._rows[key, admitted.incarnation] = seen, admitted.num_outputs
        for _, incarnation, token, finish in zip(*result_rows.rows_of(result), strict=True):
            if (key, incarnation) in self._rows:
                seen, position = self._rows[key, incarnation]
                seen.push(position, token, Finish(finish))
                self._rows[key, incarnation] = seen, position + 1
        self._end(result.ended)

    def _end(self, ends: Iterable[log.Ended], *, by_notice: bool = False) -> None:
        for ended in ends:
            seen = self._seen.setdefault(public_name(ended.request_id), _Seen())
            if not seen.final:
                seen.final = Finish(ended.reason)
                seen.length = ended.num_outputs if by_notice else 0
