"""The stores that the contract tests run against."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from albireo.store.redis_store import RedisStore
from gateway.store.redis_store import RedisGatewayStore
from tests.gateway.store.scene import KEYS, Body, Scene


@pytest.fixture(params=["redis"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """An empty store."""
    yield from redis_scene(request.getfixturevalue("redis_url"))


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
