"""A cell: one Redis, with the schedulers and worker groups of any number of models.

The gateway creates one for each Redis of its settings. On the event loop.
"""

from __future__ import annotations

import contextlib

from redis.exceptions import RedisError

from albireo.contract.tenants import DEFAULT, TenantPolicy
from albireo.runtime.redis_address import cell_name
from gateway.liveness.periodic import Periodic
from gateway.store.cell_store import CellStore

READ_SECONDS = 1.0


class Cell:
    """What it holds for all models, read once a second. Where it does not answer, the last answer counts."""

    def __init__(self, address: str, store: CellStore) -> None:
        """``address``: URL of Redis, with its password."""
        self.address = address
        self.name = cell_name(address)
        self.models: set[str] = set()
        """Names of those that have a scheduler."""
        self._store = store
        self._policies: dict[str, TenantPolicy] = {}
        self._periodic = Periodic(f"cell {self.name}", READ_SECONDS, self._read)

    def policy_of(self, tenant: str) -> TenantPolicy:
        """The policy of a tenant in this cell, or the default."""
        return self._policies.get(tenant, DEFAULT)

    async def start(self) -> None:
        """Reads once, if the cell answers."""
        with contextlib.suppress(RedisError):  # ``run`` reports it
            await self._read()

    async def _read(self) -> None:
        self._policies = await self._store.tenant_policies()
        self.models = await self._store.models()

    async def run(self) -> None:
        """Reads until stopped."""
        await self._periodic.run()

    def stop(self) -> None:
        """Ends ``run``."""
        self._periodic.stop()

    async def close(self) -> None:
        """After ``run`` has ended."""
        await self._store.close()
