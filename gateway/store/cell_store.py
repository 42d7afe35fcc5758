"""What a cell's Redis holds for all models, as a gateway reads it: their names, and tenants' policies."""

from __future__ import annotations

from typing import Protocol, cast

from albireo.contract.keys import MODELS, TENANT_POLICIES, Keys
from albireo.contract.tenants import TenantPolicy
from albireo.store.tenant_policies import policies_of
from gateway.store.connection import open_client


class CellStore(Protocol):
    """Errors of a store that cannot answer are redis-py's ``RedisError``."""

    async def tenant_policies(self) -> dict[str, TenantPolicy]:
        """By tenant; others have the default."""
        ...

    async def models(self) -> set[str]:
        """Names of the models that have a scheduler."""
        ...

    async def close(self) -> None: ...


class RedisCellStore:
    """Over a connection of its own."""

    def __init__(self, url: str) -> None:
        """Connects at the first call. Raises ValueError for what is no Redis URL."""
        self._client = open_client(url, connections=1)

    async def tenant_policies(self) -> dict[str, TenantPolicy]:
        return policies_of(cast("dict[bytes, bytes]", await self._client.hgetall(TENANT_POLICIES)))

    async def models(self) -> set[str]:
        members = cast("set[bytes]", await self._client.smembers(MODELS))
        names = [name.decode(errors="replace") for name in members]
        async with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.exists(Keys(name).lease)
            found = cast("list[int]", await pipe.execute())
        return {name for name, leased in zip(names, found, strict=True) if leased}

    async def close(self) -> None:
        await self._client.aclose()
