"""The store in memory, for code that blocks: scheduler and workers in virtual time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from albireo.contract.keys import TENANT_POLICIES, Keys
from albireo.contract.tenants import TenantPolicy
from albireo.store.interface import EntryId, Fenced, GroupOpening, LogEntry, NewEntry, TenantReport
from albireo.store.tenant_policies import policies_of
from albireo.virtual import epoch_scripts, scripts
from albireo.virtual.keyspace import Keyspace, RefusedId, parse


class MemoryStore:
    """One caller's face of a keyspace; see :class:`albireo.store.interface.Store`. It always answers."""

    def __init__(self, space: Keyspace, keys: Keys) -> None:
        self._space = space
        self._keys = keys

    def time(self) -> float:
        return self._space.clock.time_ns() / 1e9

    def log(self, key: str, *, keep: int = 0) -> MemoryLog:
        return MemoryLog(self._space, key, keep)

    def append_all(self, entries: Sequence[NewEntry], *, keep: int) -> None:
        fenced: Fenced | None = None
        for key, entry_id, data in entries:
            try:
                self.log(key, keep=keep).append(entry_id, data)
            except Fenced as error:
                fenced = error
        if fenced is not None:
            raise fenced

    def read(self, after: Mapping[str, str], wait: float) -> dict[str, list[LogEntry]]:
        return self._space.read_blocking(after, wait)

    def lease(self, key: str, value: bytes, *, ttl: float) -> MemoryLease:
        return MemoryLease(self._space, self._keys, key, value, ttl)

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._space.get(key) for key in keys]

    def announce(self, key: str, value: bytes, *, ttl: float, retry: bool = True) -> None:
        self._space.set(key, value, ttl=ttl)

    def put(self, key: str, value: bytes) -> None:
        self._space.set(key, value)

    def open_epoch(self, *, lease_value: bytes) -> tuple[int, str]:
        epoch = epoch_scripts.open_epoch(self._space, self._keys, lease_value=lease_value)
        if epoch is None:
            raise Fenced(f"{self._keys.epoch}: the lease is another's")
        return epoch, self.log(self._keys.inbox).last()

    def register(self, incarnation: str) -> None:
        if not epoch_scripts.register(self._space, self._keys, group=incarnation):
            raise Fenced(f"{incarnation}: this life of the group is over")

    def leave(self, incarnation: str) -> None:
        epoch_scripts.leave(self._space, self._keys, group=incarnation)

    def groups(self) -> dict[str, bytes | None]:
        space, keys = self._space, self._keys
        return {group: space.get(keys.group(group)) for group in space.members(keys.groups)}

    def open_group(self, opening: GroupOpening, *, notice: int, lease_value: bytes) -> None:
        if not epoch_scripts.open_group(
            self._space, self._keys, opening, notice=notice, lease_value=lease_value
        ):
            raise _not_led(opening)

    def close_group(self, opening: GroupOpening, reason: str, *, notice: int, lease_value: bytes) -> None:
        if not epoch_scripts.close_group(
            self._space, self._keys, opening, reason, notice=notice, lease_value=lease_value
        ):
            raise _not_led(opening)

    def count_departures(self, *, epoch: int, total: int) -> None:
        scripts.depart(self._space, self._keys, epoch=epoch, total=total)

    def report_tenants(self, reports: Mapping[str, TenantReport], *, epoch: int, number: int) -> None:
        scripts.report(self._space, self._keys, reports, epoch=epoch, number=number)

    def tenant_policies(self) -> dict[str, TenantPolicy]:
        return policies_of(self._space.hash(TENANT_POLICIES))

    def ping(self) -> None:
        """It is there."""

    def close(self) -> None:
        """There is no connection."""


class MemoryLog:
    """See :class:`albireo.store.interface.Log`."""

    def __init__(self, space: Keyspace, key: str, keep: int) -> None:
        self._space = space
        self._key = key
        self._keep = keep

    def append(self, entry_id: EntryId, data: bytes) -> None:
        if self._keep == 0:
            raise ValueError(f"{self._key}: a log that is opened without `keep` is only read")
        if self._space.find_stream(self._key) is None:
            raise Fenced(f"{self._key} {entry_id}: the log is gone")
        try:
            self._space.append(self._key, entry_id, data)
        except RefusedId as error:
            if not self._space.stream(self._key).has(entry_id, data):
                raise Fenced(f"{self._key} {entry_id}: another writer has come as far") from error
        else:
            self._space.stream(self._key).trim_to(self._keep)

    def last(self) -> str:
        return str(EntryId(*self._space.stream(self._key).newest))

    def read(self, after: str, wait: float) -> list[LogEntry]:
        return self._space.read_blocking({self._key: after}, wait).get(self._key, [])

    def trim(self, before: str) -> int:
        stream = self._space.stream(self._key)
        stream.trim_before(parse(before))
        return len(stream)


class MemoryLease:
    """See :class:`albireo.store.interface.Lease`."""

    def __init__(self, space: Keyspace, keys: Keys, key: str, value: bytes, ttl: float) -> None:
        self._space = space
        self._keys = keys
        self._key = key
        self._value = value
        self._ttl = ttl
        self._epoch = 0  # the last one that was opened, as of the last renewal

    def acquire(self) -> bool:
        return bool(scripts.take(self._space, self._key, self._value, ttl=self._ttl))

    def renew(self) -> None:
        epoch = scripts.renew(
            self._space, self._keys, self._key, self._value, ttl=self._ttl, least_epoch=self._epoch
        )
        if epoch < 0:
            raise Fenced(f"{self._key} was lost")
        self._epoch = epoch

    def release(self) -> None:
        scripts.release(self._space, self._key, self._value)


def _not_led(opening: GroupOpening) -> Fenced:
    return Fenced(f"{opening.group} in epoch {opening.epoch}: the lease is another's, or so is the epoch")
