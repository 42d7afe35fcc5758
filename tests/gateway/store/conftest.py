"""The stores that the contract tests run against."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from albireo.store.redis_store import RedisStore
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from gateway.store.memory_store import MemoryGatewayStore
from gateway.store.redis_store import RedisGatewayStore
from tests.gateway.store.scene import KEYS, Body, Scene


@pytest.fixture(params=["redis", "memory"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """An empty store."""
    if request.param == "redis":
        yield from redis_scene(request.getfixturevalue("redis_url"))
    else:
        yield from memory_scene()


def redis_scene(url: str) -> Iterator[Scene]:
    store = RedisStore.open(url, KEYS)

    def run(test: Body) -> None:
        asyncio.run(closing(test))

    async def closing(test: Body) -> None:
        try:
            await test
        finally:
            for gateway in found.gateways:
                await gateway.close()

    found = Scene(store, lambda name, keys: RedisGatewayStore(url, keys, name), run)
    yield found
    store.close()


def memory_scene() -> Iterator[Scene]:
    with VirtualClock() as clock:
        space = Keyspace(clock)
        yield Scene(
            MemoryStore(space, KEYS), lambda name, keys: MemoryGatewayStore(space, keys, name), clock.run
        )
