"""Policies of tenants in Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from albireo.contract.keys import TENANT_POLICIES
from albireo.contract.tenants import TenantPolicy
from albireo.store.connection import connect
from albireo.store.tenant_policies import TenantPolicies


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    yield client
    client.close()


def test_policies_are_kept_by_tenant(client: redis.Redis) -> None:
    policies = TenantPolicies(client)
    assert policies.all() == {}
    policies.put("a", TenantPolicy(weight=2.0, max_requests=8))
    policies.put("b", TenantPolicy(tokens_per_minute=1000))
    policies.put("a", TenantPolicy(weight=4.0))
    assert policies.all() == {"a": TenantPolicy(weight=4.0), "b": TenantPolicy(tokens_per_minute=1000)}
    assert policies.remove("a")
    assert not policies.remove("a")
    assert list(policies.all()) == ["b"]


def test_a_policy_that_cannot_be_read_is_logged_and_left_out(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    policies = TenantPolicies(client)
    policies.put("a", TenantPolicy(weight=2.0))
    client.hset(TENANT_POLICIES, "b", "nonsense")
    assert list(policies.all()) == ["a"]
    assert "the policy of tenant b is ignored" in caplog.text
