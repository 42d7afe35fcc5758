"""The store in Redis, for threads that may block: scheduler and workers.

Plans and results share a form: entries with ids ``<epoch>-<step>`` chosen by the writer. Redis refuses
an id that is not above the last one, so a second writer of the same step, or one of a closed epoch, is
refused with :class:`Fenced`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import cast

import redis
from redis.exceptions import RedisError

from albireo.contract.keys import Keys
from albireo.store.connection import connect, retried
from albireo.store.interface import EntryId, Fenced, LogEntry
from albireo.store.redis_errors import Trouble, trouble
from albireo.store.scripts import ANNOUNCE, APPEND, DEPART, OPEN_EPOCH, RELEASE, RENEW, TAKE
from albireo.v1 import log_pb2 as log

FIELD = b"e"
"""The field of a stream's entry that holds its payload."""
READ_COUNT = 1024
"""Most entries of one log that a read returns."""
SLOW_SECONDS = 0.1
"""An answer that takes longer says too little about Redis's clock: the last measurement is kept."""
SYNC_SECONDS = 10.0
"""How often the offset between Redis's clock and this host's is measured."""

RawEntry = tuple[bytes, dict[bytes, bytes]]


class RedisLog:
    """One stream; see :class:`albireo.store.interface.Log`. Retries for ``RECONNECT_SECONDS``."""

    def __init__(self, client: redis.Redis, key: str, *, keep: int = 0) -> None:
        self._client = client
        self._key = key
        self._keep = keep
        self._append = client.register_script(APPEND)

    def append(self, entry_id: EntryId, data: bytes) -> None:
        """Exactly once even when the connection breaks in between, and also at maxmemory."""
        if self._keep == 0:  # XADD would leave no entry at all
            raise ValueError(f"{self._key}: a log that is opened without `keep` is only read")
        try:
            retried(
                self._client,
                lambda: self._append(keys=[self._key], args=[str(entry_id), data, self._keep]),
            )
        except RedisError as error:
            if trouble(error) is not Trouble.REFUSED_ID:
                raise
            # An attempt whose answer was lost may have gone through.
            if not retried(self._client, lambda: self._has(entry_id, data)):
                raise Fenced(f"{self._key} {entry_id}: another writer has come as far") from error

    def _has(self, entry_id: EntryId, data: bytes) -> bool:
        found = cast("list[RawEntry]", self._client.xrange(self._key, min=str(entry_id), max=str(entry_id)))
        return bool(found) and found[0][1].get(FIELD) == data

    def last(self) -> str:
        found = retried(self._client, lambda: self._client.xrevrange(self._key, count=1))
        newest = cast("list[RawEntry]", found)
        return newest[0][0].decode() if newest else "0-0"

    def read(self, after: str, wait: float) -> list[LogEntry]:
        return read_streams(self._client, {self._key: after}, wait).get(self._key, [])

    def trim(self, before: str) -> int:
        return retried(self._client, lambda: self._trim(before))

    def _trim(self, before: str) -> int:
        with self._client.pipeline(transaction=False) as pipe:
            pipe.xtrim(self._key, minid=before, approximate=False)
            pipe.xlen(self._key)
            _, left = cast("tuple[int, int]", pipe.execute())
        return left


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

    def open_epoch(self, *, lease_value: bytes, group_incarnation: str) -> tuple[int, str]:
        return retried(self._client, lambda: self._open_next(lease_value, group_incarnation))

    def count_departures(self, *, epoch: int, total: int) -> None:
        keys = self._keys
        names = (keys.waiting, keys.departed, keys.epoch)
        retried(self._client, lambda: self._client.eval(DEPART, 3, *names, str(epoch), str(total)))

    def ping(self) -> None:
        self._client.ping()

    def close(self) -> None:
        self._client.close()

    def _open_next(self, lease_value: bytes, group_incarnation: str) -> tuple[int, str]:
        # The logs count as well: a Redis that came back empty gets entries of the last epoch from a group
        # that never noticed.
        keys = self._keys
        counted = int(cast("bytes | None", self._client.get(keys.epoch)) or 0)
        logged = (EntryId.parse(self.log(key).last()).epoch for key in (keys.plans, keys.results))
        epoch = max(counted, *logged) + 1
        opening = log.EpochOpen(epoch=epoch, group_incarnation=group_incarnation)
        logs = (keys.plans, keys.results, keys.inbox)
        names = (keys.epoch, *logs, keys.waiting, keys.lease, keys.serving, keys.departed)
        arguments = (
            lease_value,
            str(epoch),
            log.PlanEntry(open=opening).SerializeToString(),
            log.ResultEntry(open=opening).SerializeToString(),
            "1" if group_incarnation else "0",
        )
        begin = cast("bytes | None", self._client.eval(OPEN_EPOCH, len(names), *names, *arguments))
        if begin is None:
            raise Fenced(f"{keys.epoch} {epoch}: the lease is another's, or so is the epoch")
        return epoch, begin.decode()


def read_streams(client: redis.Redis, after: Mapping[str, str], wait: float) -> dict[str, list[LogEntry]]:
    """Entries of several streams behind the given ids, by key; waits up to ``wait`` seconds for any.

    ``wait`` must stay below the client's socket timeout. An entry without our field has an empty payload.
    """
    streams = cast("dict[bytes | str | memoryview, int | bytes | str | memoryview]", dict(after))
    block_ms = max(1, int(wait * 1000)) if wait > 0 else None  # 0 would wait without end
    raw = retried(client, lambda: client.xread(streams, count=READ_COUNT, block=block_ms))
    replies = cast("list[tuple[bytes, list[RawEntry]]]", raw or [])
    return {
        key.decode(): [(entry_id, fields.get(FIELD, b"")) for entry_id, fields in entries]
        for key, entries in replies
    }
