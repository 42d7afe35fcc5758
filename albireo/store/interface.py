"""What scheduler and workers need of the store that all tiers share: logs, leases, announcements.

Two implementations: :class:`albireo.store.redis_store.RedisStore`, and the in-memory one of
:mod:`albireo.virtual`, in virtual time; ``tests/albireo/store`` holds both to the same contract. A gateway
has an interface of its own to the same keys (``gateway/store``), since it runs on an event loop.

Errors of a store that cannot answer are redis-py's ``RedisError``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from albireo.contract.tenants import TenantPolicy


class Fenced(RuntimeError):
    """Another writer owns this log now; this one must stop."""


class EntryId(NamedTuple):
    """Id of an entry of the plan or results log."""

    epoch: int
    step: int

    @classmethod
    def parse(cls, raw: bytes | str) -> EntryId:
        epoch, step = raw.split(b"-") if isinstance(raw, bytes) else raw.split("-")
        return cls(int(epoch), int(step))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.step}"


LAST_STEP = 2**64 - 1
"""The step of the entry that closes the logs of a group: Redis takes none behind it in the same epoch."""
CLOSED_LOG_SECONDS = 60.0
"""How long the logs of a group that was closed, or has left, stay readable."""


class GroupOpening(NamedTuple):
    """One life of a group in one epoch."""

    epoch: int
    group: str  # incarnation
    name: str


class TenantReport(NamedTuple):
    """Of one tenant, since the last report."""

    departed: int  # branches that left the queue
    ended: int  # branches, wherever they were
    cost_ms: float  # of the tokens that it got, in milliseconds of its quota of tokens a minute


LogEntry = tuple[bytes, bytes]
"""Id and payload of one entry."""


class NewEntry(NamedTuple):
    """What is appended to one of several logs."""

    key: str  # of the log
    entry_id: EntryId
    data: bytes


def appended_at(entry_id: bytes) -> float:
    """When an entry of the inbox was appended: seconds since the Unix epoch, by the clock of the store."""
    return int(entry_id.partition(b"-")[0]) / 1000


class Log(Protocol):
    """One log. A single thread of a process uses it."""

    def append(self, entry_id: EntryId, data: bytes) -> None:
        """Appends one entry under the writer's own id, exactly once.

        Raises Fenced when the log has an entry with this id, or a later one, that is not this one, or when it
        has none at all: logs begin by ``open_epoch`` and ``open_group``. Raises ValueError when it was opened
        without ``keep``.
        """
        ...

    def last(self) -> str:
        """Id of the newest entry; ``0-0`` where there has been none."""
        ...

    def read(self, after: str, wait: float) -> list[LogEntry]:
        """Entries behind ``after``, oldest first. Waits up to ``wait`` seconds for the first of them."""
        ...

    def trim(self, before: str) -> int:
        """Removes the entries before an id; returns how many are left."""
        ...


class Lease(Protocol):
    """An expiring key with its owner's value: the scheduler's tenure, or the announcement of a group."""

    def acquire(self) -> bool:
        """Takes the key where it is free, or is ours already."""
        ...

    def renew(self) -> None:
        """Raises Fenced when the key is another's, or when it is gone together with the logs.

        One that has run out is taken again: no lease can be renewed while the store stands still. If another
        had it in between, that one has left an epoch in the logs, which fences us.
        """
        ...

    def release(self) -> None:
        """Gives the key back, if it is still ours."""
        ...


class Store(Protocol):
    """The keys of one model. Each thread of a process opens its own."""

    def time(self) -> float:
        """Seconds since the Unix epoch by the clock that all tiers share: the store's own. Ids of inbox
        entries are in this time, so deadlines that count from them are too."""
        ...

    def log(self, key: str, *, keep: int = 0) -> Log:
        """``keep``: about how many entries an append leaves in the log. Only a writer gives it."""
        ...

    def append_all(self, entries: Sequence[NewEntry], *, keep: int) -> None:
        """Appends entries of different logs as ``Log.append`` does each, in one round trip if all goes well.

        ``keep`` as in ``log``. Raises Fenced when one or more were refused; the others are appended.
        """
        ...

    def read(self, after: Mapping[str, str], wait: float) -> dict[str, list[LogEntry]]:
        """Entries of several logs behind the given ids, by key; a log without any is left out. Waits up to
        ``wait`` seconds for the first of all."""
        ...

    def lease(self, key: str, value: bytes, *, ttl: float) -> Lease:
        """``ttl``: seconds after which an owner that stopped renewing is taken for dead."""
        ...

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Values of keys; None for one that is not there, or has expired."""
        ...

    def announce(self, key: str, value: bytes, *, ttl: float, retry: bool = True) -> None:
        """Writes what others read for the next ``ttl`` seconds. ``retry``: False where a caller has no time
        to wait for a store that does not answer."""
        ...

    def open_epoch(self, *, lease_value: bytes) -> tuple[int, str]:
        """Opens the next epoch, as entry ``<epoch>-0`` of the notices; returns it and the inbox id after
        which it begins. No group serves in it yet, and no request waits.

        It is above the counter, and above all that the notices and the logs of registered groups hold: the
        counter alone may have gone back, with a store that lost data. Raises Fenced when the lease is no
        longer ours. After an attempt whose answer was lost the next one opens one epoch more.
        """
        ...

    def register(self, incarnation: str) -> None:
        """A group, which has announced itself, is there to be led. Idempotent. Raises Fenced where it has
        been closed: a life is led once."""
        ...

    def leave(self, incarnation: str) -> None:
        """A group takes no more work: its scheduler closes it at its next look. Idempotent. Its logs expire
        after ``CLOSED_LOG_SECONDS``, also where there is no scheduler. It gives its lease back afterwards."""
        ...

    def groups(self) -> dict[str, bytes | None]:
        """Announcements of all registered groups, by incarnation, sorted; None where one has expired.

        A scheduler closes those as well that died before it came: nothing else ends their logs.
        """
        ...

    def open_group(self, opening: GroupOpening, *, notice: int, lease_value: bytes) -> None:
        """Opens both logs of a group with entry ``<epoch>-0``, adds it to those that serve, and appends the
        opening to the notices as ``<epoch>-<notice>``: all or nothing. Exactly once, like ``Log.append``.

        Raises Fenced when another has the lease (one that ran out and is free can be renewed), when the last
        epoch that was opened is not this one, when the notices have come as far, or when a log of the group
        has: it was opened in this epoch, or closed.
        """
        ...

    def close_group(self, opening: GroupOpening, reason: str, *, notice: int, lease_value: bytes) -> None:
        """Closes both logs of a group with the entry ``<epoch>-<LAST_STEP>``, so that they take no other of
        that epoch, lets them expire after ``CLOSED_LOG_SECONDS``, takes the group off the registered ones and
        off those that serve, and appends a notice: all or nothing. Exactly once.

        The group need not have been opened in this epoch, and its logs need not be there. Raises Fenced as
        ``open_group``, but for logs that are open in this epoch.
        """
        ...

    def put(self, key: str, value: bytes) -> None:
        """Writes a value that does not expire. Idempotent."""
        ...

    def count_departures(self, *, epoch: int, total: int) -> None:
        """Takes requests that left the queue off the count of those that wait. ``total``: since the epoch
        opened, so the call is idempotent."""
        ...

    def report_tenants(self, reports: Mapping[str, TenantReport], *, epoch: int, number: int) -> None:
        """What became of tenants' requests since the last report. ``number``: of this one since the epoch
        opened, from 1, so the call is idempotent."""
        ...

    def tenant_policies(self) -> dict[str, TenantPolicy]:
        """By tenant; others have the default."""
        ...

    def ping(self) -> None:
        """Returns once the store has answered."""
        ...

    def close(self) -> None:
        """Gives the connection back."""
        ...


OpenStore = Callable[[], Store]
"""Opens a store for the calling thread."""
