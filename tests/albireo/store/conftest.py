"""Both stores, for tests of what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import redis

from albireo.contract.keys import Keys
from albireo.runtime.clock import SYSTEM_CLOCK, Clock
from albireo.store.interface import Store
from albireo.store.redis_store import RedisStore
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from tests.albireo.store.scripted import MemoryScripts, RedisScripts, Scripts

KEYS = Keys("m")


@dataclass(frozen=True)
class Backend:
    """One implementation: Redis in real time, or memory in virtual time."""

    clock: Clock
    open: Callable[[], Store]  # as another thread or process opens it
    scripts: Scripts
    lose_data: Callable[[], object]

    def wait_until(self, condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
        """Looks every few milliseconds; fails after ``seconds``."""
        deadline = self.clock.now() + seconds
        while not condition():
            assert self.clock.now() < deadline, "not in time"
            self.clock.sleep(0.005)


@pytest.fixture(params=["redis", "memory"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        client = redis.Redis.from_url(url)
        opened: list[RedisStore] = []

        def open_store() -> RedisStore:
            opened.append(RedisStore.open(url, KEYS))
            return opened[-1]

        yield Backend(SYSTEM_CLOCK, open_store, RedisScripts(client, KEYS), client.flushall)
        for store in opened:
            store.close()
        client.close()
    else:
        with VirtualClock() as clock:
            space = Keyspace(clock)
            scripts = MemoryScripts(space, KEYS)
            yield Backend(clock, lambda: MemoryStore(space, KEYS), scripts, space.clear)


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.open()
