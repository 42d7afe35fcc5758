"""What a scripted group and a real scheduler run on: a real Redis in real time, or virtual time."""

from __future__ import annotations

from typing import Protocol, cast

from redis.exceptions import ResponseError

from albireo.contract.keys import Keys
from albireo.runtime.clock import SYSTEM_CLOCK, Clock
from albireo.store.connection import connect
from albireo.store.interface import EntryId, Store
from albireo.store.redis_log import FIELD
from albireo.store.redis_store import RedisStore
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace, RefusedId
from albireo.virtual.store import MemoryStore

POLL_SECONDS = 0.002
"""Redis ends a blocking read up to 100 ms late, which the many short waits of a script would add up."""


class Cluster(Protocol):
    """A clock, and a store that tests also read and write by hand."""

    clock: Clock

    def open_store(self, keys: Keys) -> Store: ...

    def get(self, key: str) -> bytes | None: ...

    def set(self, key: str, value: bytes) -> None: ...

    def increment(self, key: str, count: int) -> None: ...

    def append(self, key: str, data: bytes) -> None:
        """Appends to an inbox, under an id that is the time."""
        ...

    def refuses(self, key: str, entry_id: EntryId, data: bytes) -> bool:
        """Appends to a log of steps, as any writer could; returns whether the id was refused."""
        ...

    def wait_read(self) -> None:
        """Waits until the scheduler, the only reader that blocks, has taken in all that is in its logs."""
        ...


class RedisCluster:
    """A real Redis, real time, threads."""

    def __init__(self, url: str) -> None:
        self.clock: Clock = SYSTEM_CLOCK
        self.redis = connect(url)
        self._url = url

    def open_store(self, keys: Keys) -> Store:
        return RedisStore.open(self._url, keys)

    def get(self, key: str) -> bytes | None:
        return cast("bytes | None", self.redis.get(key))

    def set(self, key: str, value: bytes) -> None:
        self.redis.set(key, value)

    def increment(self, key: str, count: int) -> None:
        self.redis.incrby(key, count)

    def append(self, key: str, data: bytes) -> None:
        self.redis.xadd(key, {FIELD: data})

    def refuses(self, key: str, entry_id: EntryId, data: bytes) -> bool:
        try:
            self.redis.xadd(key, {FIELD: data}, id=str(entry_id))
        except ResponseError:
            return True
        return False

    def wait_read(self) -> None:
        # Redis unblocks a reader within the write that it waited for. So from there on, a reader that is
        # blocked is one that has taken that in.
        while not self.redis.info("clients")["blocked_clients"]:
            self.clock.sleep(POLL_SECONDS)


class VirtualCluster:
    """A keyspace in memory, virtual time, actors."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock: Clock = clock
        self.space = Keyspace(clock)

    def open_store(self, keys: Keys) -> Store:
        return MemoryStore(self.space, keys)

    def get(self, key: str) -> bytes | None:
        return self.space.get(key)

    def set(self, key: str, value: bytes) -> None:
        self.space.set(key, value)

    def increment(self, key: str, count: int) -> None:
        self.space.set(key, str(self.space.number(key) + count).encode())

    def append(self, key: str, data: bytes) -> None:
        self.space.append_now(key, data)

    def refuses(self, key: str, entry_id: EntryId, data: bytes) -> bool:
        try:
            self.space.append(key, entry_id, data)
        except RefusedId:
            return True
        return False

    def wait_read(self) -> None:
        self.clock.sleep(POLL_SECONDS)  # all else runs meanwhile
