"""Keeps the policies of tenants as they are in the store: a change counts within about a second.

One task of the event loop runs it (``PolicyWatch.run``, started by the gateway); the submitter asks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from redis.exceptions import RedisError

from albireo.contract.tenants import DEFAULT, TenantPolicy
from albireo.store.redis_errors import describe
from gateway.store.interface import GatewayStore

logger = logging.getLogger(__name__)

WATCH_SECONDS = 1.0


class PolicyWatch:
    """Reads all policies once a second. Where the store does not answer, the last ones count."""

    def __init__(self, store: GatewayStore) -> None:
        self._store = store
        self._policies: dict[str, TenantPolicy] = {}
        self._stopping = asyncio.Event()

    def of(self, tenant: str) -> TenantPolicy:
        """The policy of a tenant, or the default."""
        return self._policies.get(tenant, DEFAULT)

    def stop(self) -> None:
        """Ends ``run``."""
        self._stopping.set()

    async def run(self) -> None:
        """Follows the policies until stopped."""
        while not self._stopping.is_set():
            try:
                self._policies = await self._store.tenant_policies()
            except RedisError as error:
                logger.warning("policies of tenants: %s", describe(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._stopping.wait()
