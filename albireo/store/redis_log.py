"""One log in Redis: a stream whose entries have ids ``<epoch>-<step>`` that the writer chooses.

Redis refuses an id that is not above the last one, and takes no entry into a log that is not there. So a
second writer of the same step, one of a closed epoch, and one whose log was lost are refused with
:class:`Fenced`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import redis
from redis.commands.core import Script
from redis.exceptions import RedisError

from albireo.store.connection import retried
from albireo.store.interface import EntryId, Fenced, LogEntry, NewEntry
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
        self._script = client.register_script(APPEND)

    def append(self, entry_id: EntryId, data: bytes) -> None:
        if self._keep == 0:  # XADD would leave no entry at all
            raise ValueError(f"{self._key}: a log that is opened without `keep` is only read")
        append(self._client, self._script, NewEntry(self._key, entry_id, data), self._keep)

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


def append(client: redis.Redis, script: Script, entry: NewEntry, keep: int) -> None:
    """See :meth:`albireo.store.interface.Log.append`; ``script`` is APPEND.

    Exactly once even when the connection breaks in between, and also at maxmemory.
    """
    key, entry_id, data = entry
    try:
        appended = retried(client, lambda: script(keys=[key], args=[str(entry_id), data, keep]))
    except RedisError as error:
        if trouble(error) is not Trouble.REFUSED_ID:
            raise
        # An attempt whose answer was lost may have gone through.
        if not retried(client, lambda: _has(client, entry)):
            raise Fenced(f"{key} {entry_id}: another writer has come as far") from error
    else:
        if appended is None:
            raise Fenced(f"{key} {entry_id}: the log is gone")


def _has(client: redis.Redis, entry: NewEntry) -> bool:
    entry_id = str(entry.entry_id)
    found = cast("list[RawEntry]", client.xrange(entry.key, min=entry_id, max=entry_id))
    return bool(found) and found[0][1].get(FIELD) == entry.data


def append_all(client: redis.Redis, script: Script, entries: Sequence[NewEntry], keep: int) -> None:
    """See :meth:`albireo.store.interface.Store.append_all`; ``script`` is APPEND."""
    # A pipeline of one costs more than the append alone.
    appended = _pipelined(client, script, entries, keep) if len(entries) > 1 else [False] * len(entries)
    fenced: Fenced | None = None
    for entry, done in zip(entries, appended, strict=True):
        if done:
            continue
        try:  # by itself: that retries, finds what lost its answer, and knows why it is refused
            append(client, script, entry, keep)
        except Fenced as error:
            fenced = error
    if fenced is not None:
        raise fenced


def _pipelined(client: redis.Redis, script: Script, entries: Sequence[NewEntry], keep: int) -> list[bool]:
    """Which entries were appended for certain. Tries each once."""
    with client.pipeline(transaction=False) as pipe:
        for key, entry_id, data in entries:
            pipe.evalsha(script.sha, 1, key, str(entry_id), cast("str", data), str(keep))
        try:
            answers = pipe.execute(raise_on_error=False)
        except RedisError:
            return [False] * len(entries)
    return [isinstance(answer, bytes) for answer in answers]


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
