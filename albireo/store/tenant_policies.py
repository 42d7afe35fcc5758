"""The policies of all tenants of a deployment in Redis: one hash, a field for each tenant.

Commands write it by :class:`TenantPolicies`; scheduler and gateways read it every second.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import cast

import redis

from albireo.contract import tenants
from albireo.contract.keys import TENANT_POLICIES
from albireo.contract.tenants import TenantPolicy

logger = logging.getLogger(__name__)


class TenantPolicies:
    """All policies. Raises redis-py's RedisError where Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def put(self, tenant: str, policy: TenantPolicy) -> None:
        """Sets a tenant's policy: services follow it within about a second."""
        self._client.hset(TENANT_POLICIES, tenant, cast("str", tenants.to_bytes(policy)))

    def remove(self, tenant: str) -> bool:
        """The tenant has the defaults again. False where it has no policy."""
        return bool(self._client.hdel(TENANT_POLICIES, tenant))

    def all(self) -> dict[str, TenantPolicy]:
        """By tenant."""
        return policies_of(cast("dict[bytes, bytes]", self._client.hgetall(TENANT_POLICIES)))


def policies_of(found: Mapping[bytes, bytes]) -> dict[str, TenantPolicy]:
    """Of the fields of the hash. One that cannot be read is logged and left out."""
    policies = {}
    for name, data in found.items():
        tenant = name.decode(errors="replace")
        try:
            policies[tenant] = tenants.from_bytes(data)
        except ValueError as error:
            logger.warning("the policy of tenant %s is ignored: %s", tenant, error)
    return policies
