"""One log in Redis: a stream whose entries have ids ``<epoch>-<step>`` that the writer chooses.

Redis refuses an id that is not above the last one, and takes no entry into a log that is not there. So a
second writer of the same step, one of a closed epoch, and one whose log was lost are refused with
:class:`Fenced`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import redis
from redis.exceptions import RedisError

from albireo.store.connection import retried
from albireo.store.interface import EntryId, Fenced, LogEntry
from albireo.store.redis_errors import Trouble, trouble
from albireo.store.scripts import APPEND

FIELD = b"e"
"""The field of a stream's entry that holds its payload."""
READ_COUNT = 1024
"""Most entries of one log that a read returns."""

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
            appended = retried(
                self._client,
                lambda: self._append(keys=[self._key], args=[str(entry_id), data, self._keep]),
            )
        except RedisError as error:
            if trouble(error) is not Trouble.REFUSED_ID:
                raise
            # An attempt whose answer was lost may have gone through.
            if not retried(self._client, lambda: self._has(entry_id, data)):
                raise Fenced(f"{self._key} {entry_id}: another writer has come as far") from error
        else:
            if appended is None:
                raise Fenced(f"{self._key} {entry_id}: the log is gone")

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
