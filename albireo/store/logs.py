"""The logs as the scheduler and the workers use them: blocking, over one Redis connection each.

Plans and results share a form: entries with ids ``<epoch>-<step>`` chosen by the writer. Redis refuses
an id that is not above the last one, so a second writer of the same step, or one of a closed epoch, is
refused with :class:`Fenced`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from albireo.contract.keys import Keys
from albireo.store.redis_errors import Trouble, moved, passes, trouble
from albireo.store.scripts import ANNOUNCE, APPEND, DEPART, OPEN_EPOCH, RELEASE, RENEW, TAKE
from albireo.v1 import log_pb2 as log

FIELD = b"e"
Answer = TypeVar("Answer")
RECONNECT_SECONDS = 10.0
"""How long a tier rides out a Redis that does not answer, or refuses for the moment, before it gives up."""


class Fenced(RuntimeError):
    """Another writer owns this log now; this one must stop."""


class EntryId(NamedTuple):
    """Id of an entry of the plan or results log."""

    epoch: int
    step: int

    @classmethod
    def parse(cls, raw: bytes | str) -> EntryId:
        epoch, _, step = (raw.decode() if isinstance(raw, bytes) else raw).partition("-")
        return cls(int(epoch), int(step))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.step}"


Entry = tuple[bytes, bytes]
"""Raw id and payload of one entry."""


def connect(url: str, *, timeout: float = 5.0) -> redis.Redis:
    """A client whose every call is bounded by ``timeout`` seconds (blocking reads by theirs on top).

    It sends nothing twice by itself: a command whose answer was lost may have been carried out. Who knows
    better uses :func:`ride_out`. Raises ValueError for what is no Redis URL.
    """
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )


def ride_out(client: redis.Redis, call: Callable[[], Answer]) -> Answer:
    """Retries a call that does no harm when made twice, as long as its error may pass.

    Raises RedisError at once where it cannot, else when it lasts for RECONNECT_SECONDS.
    """
    deadline = time.monotonic() + RECONNECT_SECONDS
    while True:
        try:
            return call()
        except RedisError as error:
            if not passes(error) or time.monotonic() > deadline:
                raise
            if moved(error):
                client.connection_pool.disconnect()
            time.sleep(0.05)


def read_streams(
    client: redis.Redis, after: Mapping[str, str], *, block_ms: int, count: int = 1024
) -> dict[str, list[Entry]]:
    """Entries of several streams after the given ids, waiting up to ``block_ms`` (at least 1) for any.

    ``block_ms`` must stay below the client's socket timeout. An entry without our field has an empty payload.
    """
    streams = cast("dict[bytes | str | memoryview, int | bytes | str | memoryview]", dict(after))
    raw = ride_out(client, lambda: client.xread(streams, count=count, block=max(1, block_ms)))
    replies = cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", raw or [])
    return {
        key.decode(): [(entry_id, fields.get(FIELD, b"")) for entry_id, fields in entries]
        for key, entries in replies
    }


def last_id(client: redis.Redis, key: str) -> str:
    """Id of the newest entry of a stream, ``0-0`` where there is none."""
    newest = cast(
        "list[tuple[bytes, dict[bytes, bytes]]]", ride_out(client, lambda: client.xrevrange(key, count=1))
    )
    return newest[0][0].decode() if newest else "0-0"


class StepLog:
    """Writer's end of ``plans`` or ``results``. Not thread-safe: one owner."""

    def __init__(self, client: redis.Redis, key: str, *, keep: int) -> None:
        """``keep``: about how many entries stay in the stream; older ones are trimmed as it grows."""
        self._client = client
        self._key = key
        self._keep = keep
        self._append = client.register_script(APPEND)

    def append(self, entry_id: EntryId, data: bytes) -> None:
        """Appends one entry, exactly once even when the connection breaks in between, also at maxmemory.

        Raises Fenced when the id is refused and the entry that stands there is not ours, and RedisError.
        """
        try:
            ride_out(
                self._client,
                lambda: self._append(keys=[self._key], args=[str(entry_id), data, self._keep]),
            )
        except RedisError as error:
            if trouble(error) is not Trouble.REFUSED_ID:
                raise
            # An attempt whose answer was lost may have gone through.
            if not ride_out(self._client, lambda: self._stands(entry_id, data)):
                raise Fenced(f"{self._key} {entry_id}: another writer has come as far") from error

    def _stands(self, entry_id: EntryId, data: bytes) -> bool:
        found = cast(
            "list[tuple[bytes, dict[bytes, bytes]]]",
            self._client.xrange(self._key, min=str(entry_id), max=str(entry_id)),
        )
        return bool(found) and found[0][1].get(FIELD) == data


class Lease:
    """An expiring key that holds our value: the scheduler's tenure, or the announcement of a group."""

    def __init__(self, client: redis.Redis, key: str, value: bytes, *, ttl: float, epoch_key: str) -> None:
        """``ttl``: seconds after which an owner that stopped renewing is taken for dead."""
        self._client = client
        self._keys = (key, epoch_key)
        self._value = value
        self._ttl_ms = int(ttl * 1000)
        self._epoch = 0  # the last that was opened, when we last looked

    def acquire(self) -> bool:
        """Takes the key where it is free, or is ours already."""
        return bool(self._client.eval(TAKE, 1, self._keys[0], self._value, str(self._ttl_ms)))

    def renew(self) -> None:
        """Raises Fenced when the key is another's, or when it is gone together with the logs.

        One that has run out is taken again: no lease can be renewed while Redis stands still. Whoever had it
        in between has left an epoch in the logs, which fence us.
        """
        epoch = cast("int", ride_out(self._client, self._renew))
        if epoch < 0:
            raise Fenced(f"{self._keys[0]} was lost")
        self._epoch = epoch

    def _renew(self) -> object:
        arguments = (self._value, str(self._ttl_ms), str(self._epoch))
        return self._client.eval(RENEW, 2, *self._keys, *arguments)

    def release(self) -> None:
        """Gives the key back, if it is still ours."""
        self._client.eval(RELEASE, 1, self._keys[0], self._value)


def announce(client: redis.Redis, key: str, value: bytes, *, ttl: float) -> None:
    """Writes what others read for the next ``ttl`` seconds; not ridden out. Raises RedisError."""
    client.eval(ANNOUNCE, 1, key, value, str(int(ttl * 1000)))


def depart(client: redis.Redis, keys: Keys, *, epoch: int, total: int) -> None:
    """Tells how many requests have left the queue since the epoch opened. Raises RedisError."""
    ride_out(
        client,
        lambda: client.eval(DEPART, 3, keys.waiting, keys.departed, keys.epoch, str(epoch), str(total)),
    )


def open_epoch(
    client: redis.Redis, keys: Keys, *, lease_value: bytes, group_incarnation: str
) -> tuple[int, str]:
    """Opens the next epoch in both logs; returns it and the inbox id after which it begins.

    An empty ``group_incarnation`` closes the last epoch where no group is alive. Raises Fenced when the
    lease is no longer ours. After an attempt whose answer was lost the next one opens one epoch more.
    """
    return ride_out(client, lambda: _open_next(client, keys, lease_value, group_incarnation))


def _open_next(
    client: redis.Redis, keys: Keys, lease_value: bytes, group_incarnation: str
) -> tuple[int, str]:
    # The logs count as well: a Redis that came back empty gets entries of the last epoch from a group that
    # never noticed.
    counted = int(cast("bytes | None", client.get(keys.epoch)) or 0)
    logged = (EntryId.parse(last_id(client, key)).epoch for key in (keys.plans, keys.results))
    epoch = max(counted, *logged) + 1
    opening = log.EpochOpen(epoch=epoch, group_incarnation=group_incarnation)
    begin = cast(
        "bytes | None",
        client.eval(
            OPEN_EPOCH,
            8,
            keys.epoch,
            keys.plans,
            keys.results,
            keys.inbox,
            keys.waiting,
            keys.lease,
            keys.serving,
            keys.departed,
            lease_value,
            str(epoch),
            log.PlanEntry(open=opening).SerializeToString(),
            log.ResultEntry(open=opening).SerializeToString(),
            "1" if group_incarnation else "0",
        ),
    )
    if begin is None:
        raise Fenced(f"{keys.epoch} {epoch}: the lease is another's, or so is the epoch")
    return epoch, begin.decode()
