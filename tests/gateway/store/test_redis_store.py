"""What only the store in Redis does: its errors, and its connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import redis
from redis.exceptions import RedisError

from albireo.local.redis_server import LocalRedis
from albireo.store.interface import EntryId
from albireo.store.redis_errors import Trouble, code_of, trouble
from gateway.store.interface import Entries, Position
from gateway.store.redis_store import CALL_CONNECTIONS, RedisGatewayStore
from tests.gateway.store.scene import KEYS, TTL, request

NONE = EntryId(0, 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of its own: these tests change its settings."""
    found = LocalRedis(tmp_path_factory.mktemp("gateway-store"))
    yield found.url
    found.stop()


@pytest.fixture
def admin(server: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server) as client:
        client.flushall()
        client.set(KEYS.lease, "x")
        yield client


@pytest_asyncio.fixture
async def store(server: str, admin: redis.Redis) -> AsyncIterator[RedisGatewayStore]:
    found = RedisGatewayStore(server, KEYS, "a")
    await found.start_heartbeat(TTL)
    yield found
    await found.close()


async def test_a_check_raises_the_error_of_the_heartbeat(
    admin: redis.Redis, store: RedisGatewayStore
) -> None:
    admin.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(RedisError) as raised:
            await store.check(TTL)
    finally:
        admin.replicaof("NO", "ONE")
    assert code_of(raised.value) == "READONLY"
    await store.recover(raised.value)
    assert (await store.check(TTL)).leased


async def test_a_check_of_keys_of_another_type_is_an_error(
    admin: redis.Redis, store: RedisGatewayStore
) -> None:
    admin.set(KEYS.serving, 1)
    with pytest.raises(RedisError) as raised:
        await store.check(TTL)
    assert trouble(raised.value) is Trouble.LASTING


async def test_at_the_memory_limit_requests_are_refused_and_running_ones_can_end(
    admin: redis.Redis, store: RedisGatewayStore
) -> None:
    assert (await store.submit(request()))[0] == "accepted"
    admin.config_set("maxmemory", "100kb")
    try:
        with pytest.raises(RedisError) as raised:
            await store.submit(request("another"))
        assert (await store.check(TTL)).heartbeat_kept
        assert await store.cancel_known("r") == "cancelled"
        await store.cancel(b"-r")
        await store.note_end("r", b"-r")
        await store.withdraw("r", b"-r")
    finally:
        admin.config_set("maxmemory", 0)
    assert trouble(raised.value) is Trouble.FULL
    assert await store.cancel_known("another") == "unknown"


async def test_an_entry_of_another_form_has_an_empty_payload(
    admin: redis.Redis, store: RedisGatewayStore
) -> None:
    admin.xadd(KEYS.results("w"), {"other": "x"}, id="1-1")
    admin.xadd(KEYS.notices, {"other": "x"}, id="1-2")
    found = await store.read(Position(NONE, {"w": NONE}), 0)
    assert found == Entries({"w": [(b"1-1", b"")]}, [(b"1-2", b"")])


async def test_many_calls_do_not_delay_reads_of_the_results(
    admin: redis.Redis, store: RedisGatewayStore
) -> None:
    """All connections for calls wait for answers that do not come yet."""
    admin.client_pause(10_000, all=False)  # writes
    calls = [asyncio.create_task(store.cancel(b"-r")) for _ in range(CALL_CONNECTIONS + 10)]
    try:
        assert await store.position() == Position(NONE, {})
    finally:
        admin.client_unpause()
    await asyncio.gather(*calls)
