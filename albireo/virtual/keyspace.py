"""What Redis holds, in memory and in virtual time: values that expire, logs, sets, request records.

The one shared state of a simulated cluster. The stores of all tiers (:mod:`albireo.virtual.store`,
``gateway/store/memory_store.py``) are faces of one keyspace; it knows neither models nor tiers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from albireo.store.interface import LogEntry
from albireo.virtual.clock import VirtualClock
from albireo.virtual.waiting import Wait

READ_COUNT = 1024
"""Most entries of one log that a read by an actor returns, as from Redis."""
TRIM_SLACK = 100
"""A log that trims itself may be so many entries longer, as in Redis."""

Id = tuple[int, int]
NONE: Id = (0, 0)


class RefusedId(ValueError):
    """The log has an entry with this id, or a later one."""


@dataclass(slots=True)
class RequestRecord:
    """What is kept of an accepted request; gateway and cancellation are None once it has ended."""

    digest: str
    epoch: int
    gateway: str | None
    cancellation: bytes | None


class MemoryStream:
    """Entries in the order of their ids."""

    __slots__ = ("_entries", "_ids", "expires", "last")

    def __init__(self) -> None:
        self.expires = float("inf")  # by the clock of its keyspace
        self._ids: list[Id] = []
        self._entries: list[LogEntry] = []  # as readers get them
        self.last = NONE  # the highest id there has been, trimmed or not

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def newest(self) -> Id:
        """Id of the last entry that is there."""
        return self._ids[-1] if self._ids else NONE

    def append(self, entry_id: Id, data: bytes) -> None:
        """Raises RefusedId."""
        if entry_id <= self.last:
            raise RefusedId(f"{entry_id} is not above {self.last}")
        self._ids.append(entry_id)
        self._entries.append((b"%d-%d" % entry_id, data))
        self.last = entry_id

    def has(self, entry_id: Id, data: bytes) -> bool:
        """Whether this entry is there."""
        index = bisect_left(self._ids, entry_id)
        return index < len(self._ids) and self._ids[index] == entry_id and self._entries[index][1] == data

    def after(self, entry_id: Id, count: int | None) -> list[LogEntry]:
        """The first ``count`` entries with ids above ``entry_id``; with None all."""
        if entry_id >= self.last:
            return []
        begin = bisect_right(self._ids, entry_id)
        return self._entries[begin : None if count is None else begin + count]

    def trim_before(self, entry_id: Id) -> None:
        self._remove(bisect_left(self._ids, entry_id))

    def trim_to(self, keep: int) -> None:
        """Leaves about ``keep`` entries."""
        if len(self._ids) >= keep + TRIM_SLACK:
            self._remove(len(self._ids) - keep)

    def _remove(self, count: int) -> None:
        del self._ids[:count], self._entries[:count]


class Keyspace:
    """Keys with their values, and who waits for the next entry of a log."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self._values: dict[str, tuple[bytes, float]] = {}  # with the time at which it expires
        self._records: dict[str, tuple[RequestRecord, float]] = {}
        self._streams: dict[str, MemoryStream] = {}
        self._sets: dict[str, set[str]] = {}
        self._hashes: dict[str, dict[bytes, bytes]] = {}
        self._listeners: dict[str, dict[Callable[[], None], None]] = {}  # by the key of a log

    def clear(self) -> None:
        """Removes all keys, as a Redis that lost its data."""
        self._values.clear()
        self._records.clear()
        self._streams.clear()
        self._sets.clear()
        self._hashes.clear()

    def get(self, key: str) -> bytes | None:
        """The value of a key; None where there is none, or it has expired."""
        value, expires = self._values.get(key, (None, 0.0))
        return value if self.clock.now() < expires else None

    def set(self, key: str, value: bytes, *, ttl: float = float("inf")) -> None:
        """``ttl``: seconds until it expires."""
        self._values[key] = (value, self.clock.now() + ttl)

    def delete(self, key: str) -> None:
        self._values.pop(key, None)

    def number(self, key: str) -> int:
        """A counter; 0 where there is none."""
        return int(self.get(key) or 0)

    def keys(self, pattern: str) -> list[str]:
        """Keys of values that match a pattern with ``*``, sorted."""
        return sorted(key for key in self._values if fnmatchcase(key, pattern) and self.get(key) is not None)

    def record(self, key: str) -> RequestRecord | None:
        """The record of a request; the caller may change it."""
        record, expires = self._records.get(key, (None, 0.0))
        return record if self.clock.now() < expires else None

    def set_record(self, key: str, record: RequestRecord, *, ttl: float) -> None:
        """``ttl``: seconds until it expires."""
        self._records[key] = (record, self.clock.now() + ttl)

    def delete_record(self, key: str) -> None:
        self._records.pop(key, None)

    def members(self, key: str) -> list[str]:
        """The members of a set, sorted; none where there is no set."""
        return sorted(self._sets.get(key, ()))

    def add(self, key: str, member: str) -> None:
        self._sets.setdefault(key, set()).add(member)

    def remove(self, key: str, member: str) -> None:
        self._sets.get(key, set()).discard(member)

    def delete_set(self, key: str) -> None:
        self._sets.pop(key, None)

    def hash(self, key: str) -> dict[bytes, bytes]:
        """A hash, which the caller may change; an empty one where there was none."""
        return self._hashes.setdefault(key, {})

    def find_stream(self, key: str) -> MemoryStream | None:
        """The log of a key; None where there is none, or it has expired."""
        stream = self._streams.get(key)
        return stream if stream is not None and self.clock.now() < stream.expires else None

    def stream(self, key: str) -> MemoryStream:
        """The log of a key; where there is none an empty one, which is not kept."""
        found = self.find_stream(key)
        return MemoryStream() if found is None else found

    def expire_stream(self, key: str, *, ttl: float) -> None:
        """A log, where there is one, is gone in ``ttl`` seconds. Forgets those whose time has come."""
        for name in [name for name in self._streams if self.find_stream(name) is None]:
            del self._streams[name]
        if key in self._streams:
            self._streams[key].expires = self.clock.now() + ttl

    def append(self, key: str, entry_id: Id, data: bytes) -> None:
        """Appends under the writer's own id, to a new log where there is none, and wakes those that wait.
        Raises RefusedId."""
        stream = self.find_stream(key)
        if stream is None:
            stream = self._streams[key] = MemoryStream()
        stream.append(entry_id, data)
        if listeners := self._listeners.get(key):
            for wake in list(listeners):
                wake()

    def append_now(self, key: str, data: bytes) -> None:
        """Appends under an id that is the time in milliseconds."""
        last, now = self.stream(key).last, self.clock.time_ns() // 1_000_000
        self.append(key, (now, 0) if now > last[0] else (last[0], last[1] + 1), data)

    def read(self, after: Mapping[str, str]) -> dict[str, list[LogEntry]]:
        """Entries behind the given ids, by the key of their log; logs without any are left out."""
        return self._read(_positions(after), READ_COUNT)

    def read_blocking(self, after: Mapping[str, str], wait: float) -> dict[str, list[LogEntry]]:
        """As ``read``, but waits up to ``wait`` seconds for the first entry; for actors."""
        positions = _positions(after)
        found = self._read(positions, READ_COUNT)
        if found or wait <= 0:
            return found
        waiting = Wait(self.clock)
        self._listen(after, waiting.end)
        try:
            appended = waiting.wait(self.clock.now() + wait)
        finally:
            self._unlisten(after, waiting.end)
        return self._read(positions, READ_COUNT) if appended else {}

    async def read_async(self, after: Mapping[str, str], wait: float) -> dict[str, list[LogEntry]]:
        """As ``read_blocking``, for tasks of the event loop, but all entries; ``wait`` may be infinite."""
        positions = _positions(after)
        found = self._read(positions, None)
        if found or wait <= 0:
            return found
        over = self.clock.loop.create_future()

        def end() -> None:
            if not over.done():
                over.set_result(None)

        timer = self.clock.loop.call_later(wait, end) if wait < float("inf") else None
        self._listen(after, end)
        try:
            await over
        finally:
            self._unlisten(after, end)
            if timer is not None:
                timer.cancel()
        return self._read(positions, None)

    def _read(self, positions: list[tuple[str, Id]], count: int | None) -> dict[str, list[LogEntry]]:
        """``count``: most entries of one log."""
        found = {}
        now = self.clock.now()
        for key, entry_id in positions:
            stream = self._streams.get(key)
            if stream is None or now >= stream.expires:
                continue
            if entries := stream.after(entry_id, count):
                found[key] = entries
        return found

    def _listen(self, keys: Iterable[str], wake: Callable[[], None]) -> None:
        """From now on ``wake`` is called after every append to one of these logs."""
        for key in keys:
            self._listeners.setdefault(key, {})[wake] = None

    def _unlisten(self, keys: Iterable[str], wake: Callable[[], None]) -> None:
        for key in keys:
            del self._listeners[key][wake]


def _positions(after: Mapping[str, str]) -> list[tuple[str, Id]]:
    return [(key, parse(entry_id)) for key, entry_id in after.items()]


def parse(entry_id: str) -> Id:
    """``<number>-<number>`` as it stands in logs."""
    first, _, second = entry_id.partition("-")
    return int(first), int(second)
