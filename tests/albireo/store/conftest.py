"""Both stores, for tests of what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import redis

from albireo.contract.keys import Keys
from albireo.runtime.clock import SYSTEM_CLOCK, Clock
from albireo.store.interface import GroupOpening, Store
from albireo.store.redis_store import RedisStore
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from tests.albireo.store.scripted import MemoryScripts, RedisScripts, Scripts

KEYS = Keys("m")
ME = b"me"
"""Value of the lease of the scheduler whose part a test plays."""
PLANS, RESULTS = KEYS.plans("x"), KEYS.results("x")
"""The logs of the group ``x``."""


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


def lead(store: Store) -> None:
    """Takes the lease."""
    assert store.lease(KEYS.lease, ME, ttl=60).acquire()


def open_logs(store: Store, group: str = "x", *, name: str = "g1", notice: int = 1) -> GroupOpening:
    """Opens an epoch, and the logs of a group in it."""
    lead(store)
    epoch, _ = store.open_epoch(lease_value=ME)
    opening = GroupOpening(epoch, group, name)
    store.register(group)
    store.open_group(opening, notice=notice, lease_value=ME)
    return opening
