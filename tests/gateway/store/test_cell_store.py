"""What a gateway reads of a cell: models that have a scheduler, and policies of tenants."""

from __future__ import annotations

import pytest
import redis

from albireo.contract.keys import Keys
from albireo.contract.tenants import TenantPolicy
from albireo.store.redis_store import RedisStore
from albireo.store.tenant_policies import TenantPolicies
from gateway.store.cell_store import RedisCellStore


@pytest.fixture
def admin(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


def schedule(url: str, model: str) -> RedisStore:
    """A scheduler takes its lease and opens an epoch."""
    store = RedisStore.open(url, Keys(model))
    assert store.lease(Keys(model).lease, b"scheduler", ttl=60).acquire()
    store.open_epoch(lease_value=b"scheduler")
    return store


async def test_models_are_those_with_a_scheduler(redis_url: str, admin: redis.Redis) -> None:
    cell = RedisCellStore(redis_url)
    assert await cell.models() == set()
    stores = [schedule(redis_url, model) for model in ("m", "org/other-2.5")]
    assert await cell.models() == {"m", "org/other-2.5"}
    admin.delete(Keys("m").lease)
    assert await cell.models() == {"org/other-2.5"}
    for store in stores:
        store.close()
    await cell.close()


async def test_policies_are_those_that_commands_write(redis_url: str, admin: redis.Redis) -> None:
    cell = RedisCellStore(redis_url)
    assert await cell.tenant_policies() == {}
    TenantPolicies(admin).put("a", TenantPolicy(max_requests=2))
    store = RedisStore.open(redis_url, Keys("m"))
    assert await cell.tenant_policies() == store.tenant_policies() == {"a": TenantPolicy(max_requests=2)}
    store.close()
    await cell.close()
