"""API keys in a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from albireo.contract.api_keys import ApiKey
from albireo.contract.keys import API_KEYS, API_KEYS_VERSION
from albireo.store.api_keys import ApiKeyStore

KEY = ApiKey(digest=bytes(32), tenant="acme", least_priority=0, greatest_priority=100, created_at=1_000)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as found:
        limit = found.config_get("maxmemory")["maxmemory"]
        yield found
        found.config_set("maxmemory", limit)


def version(client: redis.Redis) -> object:
    return client.hget(API_KEYS, API_KEYS_VERSION)


def test_what_was_put_is_there_until_it_is_removed(client: redis.Redis) -> None:
    keys = ApiKeyStore(client)
    assert keys.all() == ({}, [])
    keys.put("a" * 16, KEY)
    keys.put("b" * 16, KEY)
    assert keys.all() == ({"a" * 16: KEY, "b" * 16: KEY}, [])
    assert keys.remove("a" * 16)
    assert not keys.remove("a" * 16)
    assert keys.all() == ({"b" * 16: KEY}, [])


def test_every_change_has_another_version_also_in_a_redis_that_was_emptied(client: redis.Redis) -> None:
    keys, seen = ApiKeyStore(client), set()
    for _ in range(2):
        keys.put("a" * 16, KEY)
        seen.add(version(client))
        keys.remove("a" * 16)
        seen.add(version(client))
        client.flushall()
    assert len(seen) == 4


def test_a_record_that_cannot_be_read_hides_no_other(client: redis.Redis) -> None:
    keys = ApiKeyStore(client)
    keys.put("a" * 16, KEY)
    client.hset(API_KEYS, "b" * 16, "{}")
    found, [problem] = keys.all()
    assert found == {"a" * 16: KEY}
    assert "b" * 16 in problem


def test_a_key_is_revoked_also_in_a_redis_at_its_memory_limit(client: redis.Redis) -> None:
    keys = ApiKeyStore(client)
    keys.put("a" * 16, KEY)
    before = version(client)
    client.config_set("maxmemory", 1)
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        keys.put("b" * 16, KEY)
    assert keys.remove("a" * 16)
    assert version(client) != before
