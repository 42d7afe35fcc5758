"""The store in Redis, for threads that may block: scheduler and workers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import cast

import redis

from albireo.contract.keys import MODELS, Keys
from albireo.contract.tenants import TenantPolicy
from albireo.store import epoch_entries
from albireo.store.connection import connect, retried
from albireo.store.epoch_entries import GroupEntries
from albireo.store.epoch_scripts import CLOSE_GROUP, GROUPS, LEAVE, OPEN_EPOCH, OPEN_GROUP, REGISTER
from albireo.store.interface import (
    CLOSED_LOG_SECONDS,
    LAST_STEP,
    Fenced,
    GroupOpening,
    LogEntry,
    NewEntry,
    TenantReport,
)
from albireo.store.redis_log import RedisLog, append_all, read_streams
from albireo.store.scripts import ADD, ANNOUNCE, APPEND, DEPART, PUT, RELEASE, RENEW, REPORT, TAKE
from albireo.store.tenant_policies import TenantPolicies

SLOW_SECONDS = 0.1
"""An answer that takes longer says too little about Redis's clock: the last measurement is kept."""
SYNC_SECONDS = 10.0
"""How often the offset between Redis's clock and this host's is measured."""

CLOSED_LOG_MS = str(int(CLOSED_LOG_SECONDS * 1000))


class RedisLease:
    """See :class:`albireo.store.interface.Lease`."""

    def __init__(self, client: redis.Redis, key: str, value: bytes, *, ttl: float, epoch_key: str) -> None:
        self._client = client
        self._keys = (key, epoch_key)
        self._value = value
        self._ttl_ms = int(ttl * 1000)
        self._epoch = 0  # the last one that was opened, as of the last renewal

    def acquire(self) -> bool:
        return bool(self._client.eval(TAKE, 1, self._keys[0], self._value, str(self._ttl_ms)))

    def renew(self) -> None:
        epoch = cast("int", retried(self._client, self._renew))
        if epoch < 0:
            raise Fenced(f"{self._keys[0]} was lost")
        self._epoch = epoch

    def _renew(self) -> object:
        arguments = (self._value, str(self._ttl_ms), str(self._epoch))
        return self._client.eval(RENEW, 2, *self._keys, *arguments)

    def release(self) -> None:
        self._client.eval(RELEASE, 1, self._keys[0], self._value)


class RedisStore:
    """See :class:`albireo.store.interface.Store`. One connection; retries for ``RECONNECT_SECONDS``."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._append = client.register_script(APPEND)
        self._offset: float | None = None  # Redis's clock less this host's monotonic one; None: not measured
        self._sync_at = 0.0  # monotonic seconds

    @classmethod
    def open(cls, url: str, keys: Keys) -> RedisStore:
        """A store over a connection of its own. Raises ValueError for what is no Redis URL."""
        return cls(connect(url), keys)

    def time(self) -> float:
        """Redis's clock, measured every SYNC_SECONDS and counted on in between.

        It is behind by the time that the answer took to come, never ahead: no deadline passes early.
        """
        if time.monotonic() >= self._sync_at:
            sent = time.monotonic()
            seconds, micros = retried(self._client, self._client.time)
            received = time.monotonic()
            if self._offset is None or received - sent <= SLOW_SECONDS:
                self._offset = seconds + micros / 1e6 - received
            self._sync_at = received + SYNC_SECONDS
        return time.monotonic() + (self._offset or 0.0)

    def log(self, key: str, *, keep: int = 0) -> RedisLog:
        return RedisLog(self._client, key, keep=keep)

    def append_all(self, entries: Sequence[NewEntry], *, keep: int) -> None:
        append_all(self._client, self._append, entries, keep)

    def read(self, after: Mapping[str, str], wait: float) -> dict[str, list[LogEntry]]:
        return read_streams(self._client, after, wait)

    def lease(self, key: str, value: bytes, *, ttl: float) -> RedisLease:
        return RedisLease(self._client, key, value, ttl=ttl, epoch_key=self._keys.epoch)

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return cast("list[bytes | None]", retried(self._client, lambda: self._client.mget(list(keys))))

    def announce(self, key: str, value: bytes, *, ttl: float, retry: bool = True) -> None:
        def write() -> object:
            return self._client.eval(ANNOUNCE, 1, key, value, str(int(ttl * 1000)))

        if retry:
            retried(self._client, write)
        else:
            write()

    def put(self, key: str, value: bytes) -> None:
        retried(self._client, lambda: self._client.eval(PUT, 1, key, value))

    def open_epoch(self, *, lease_value: bytes) -> tuple[int, str]:
        opened = retried(self._client, lambda: self._open_next(lease_value))
        retried(self._client, lambda: self._client.eval(ADD, 1, MODELS, self._keys.model))
        return opened

    def register(self, incarnation: str) -> None:
        names = (self._keys.groups, self._keys.results(incarnation))
        call = (REGISTER, len(names), *names, incarnation, str(LAST_STEP))
        if not retried(self._client, lambda: self._client.eval(*call)):
            raise Fenced(f"{names[1]}: this life of the group is over")

    def leave(self, incarnation: str) -> None:
        names = (self._keys.groups, self._keys.plans(incarnation), self._keys.results(incarnation))
        call = (LEAVE, len(names), *names, incarnation, CLOSED_LOG_MS)
        retried(self._client, lambda: self._client.eval(*call))

    def groups(self) -> dict[str, bytes | None]:
        return retried(self._client, self._groups)

    def open_group(self, opening: GroupOpening, *, notice: int, lease_value: bytes) -> None:
        self._change(OPEN_GROUP, opening, epoch_entries.group_opened(opening), notice, lease_value)

    def close_group(self, opening: GroupOpening, reason: str, *, notice: int, lease_value: bytes) -> None:
        self._change(CLOSE_GROUP, opening, epoch_entries.group_closed(opening, reason), notice, lease_value)

    def count_departures(self, *, epoch: int, total: int) -> None:
        keys = self._keys
        names = (keys.waiting, keys.departed, keys.epoch)
        retried(self._client, lambda: self._client.eval(DEPART, 3, *names, str(epoch), str(total)))

    def report_tenants(self, reports: Mapping[str, TenantReport], *, epoch: int, number: int) -> None:
        keys = self._keys
        names = (keys.tenants, keys.epoch, *map(keys.tokens, reports))
        arguments = [str(epoch), str(number)]
        for tenant, report in reports.items():
            arguments += (tenant, str(report.departed), str(report.ended), str(report.cost_ms))
        retried(self._client, lambda: self._client.eval(REPORT, len(names), *names, *arguments))

    def tenant_policies(self) -> dict[str, TenantPolicy]:
        return retried(self._client, TenantPolicies(self._client).all)

    def ping(self) -> None:
        self._client.ping()

    def close(self) -> None:
        self._client.close()

    def _open_next(self, lease_value: bytes) -> tuple[int, str]:
        keys = self._keys
        logs = [key(group) for group in self._members() for key in (keys.plans, keys.results)]
        names = [keys.epoch, keys.lease, keys.inbox, keys.waiting, keys.departed, keys.serving]
        names += [keys.tenants, keys.notices]
        epoch = int(cast("bytes | None", self._client.get(keys.epoch)) or 0) + 1
        for _ in range(2):
            arguments = (lease_value, str(epoch), epoch_entries.epoch_opened(epoch))
            answer = self._client.eval(OPEN_EPOCH, len(names) + len(logs), *names, *logs, *arguments)
            if isinstance(answer, bytes):
                return epoch, answer.decode()
            if answer is None:
                break
            # The logs count as well: a Redis that went back to older data may hold entries of later epochs.
            epoch = cast("int", answer) + 1
        raise Fenced(f"{keys.epoch} {epoch}: the lease is another's, or so is the epoch")

    def _members(self) -> list[str]:
        found = cast("set[bytes]", self._client.smembers(self._keys.groups))
        return sorted(group.decode() for group in found)

    def _groups(self) -> dict[str, bytes | None]:
        members = self._members()
        if not members:
            return {}
        names = [self._keys.groups, *map(self._keys.group, members)]
        answer = self._client.eval(GROUPS, len(names), *names)
        values, still = cast("tuple[list[bytes | None], list[bytes]]", answer)
        # One that left in between has taken its announcement back: it has not died.
        return {group: value for group, value in zip(members, values, strict=True) if group.encode() in still}

    def _change(
        self, script: str, opening: GroupOpening, entries: GroupEntries, notice: int, lease_value: bytes
    ) -> None:
        keys, (epoch, group, _) = self._keys, opening
        logs = (keys.plans(group), keys.results(group))
        names = (keys.epoch, keys.lease, keys.notices, keys.groups, keys.serving, *logs)
        arguments = (
            lease_value,
            str(epoch),
            str(notice),
            entries.notice,
            group,
            entries.plan,
            entries.result,
        )
        call = (script, len(names), *names, *arguments, str(LAST_STEP), CLOSED_LOG_MS)
        if not retried(self._client, lambda: self._client.eval(*call)):
            raise Fenced(f"{group} in epoch {epoch}: the lease is another's, or so is the epoch")
