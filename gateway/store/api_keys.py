"""The API keys of the deployment, for gateways, which read them. Commands: ``albireo/store/api_keys.py``."""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

from albireo.contract.api_keys import ApiKey
from albireo.contract.keys import API_KEYS, API_KEYS_VERSION
from albireo.store.api_keys import records_of
from gateway.store.connection import open_client


class KeysRead(NamedTuple):
    """All keys at one moment."""

    version: bytes | None  # another one after each change; None where there has never been a key
    keys: dict[str, ApiKey]
    problems: list[str]  # a line for each record that cannot be read


class ApiKeySource(Protocol):
    """Where keys come from. Errors of a store that cannot answer are redis-py's ``RedisError``."""

    async def version(self) -> bytes | None:
        """Of the keys as they are now."""
        ...

    async def read(self) -> KeysRead: ...

    async def close(self) -> None: ...


class RedisApiKeys:
    """The keys in Redis, over a connection of their own."""

    def __init__(self, url: str) -> None:
        """Connects at the first call. Raises ValueError for what is no Redis URL."""
        self._client = open_client(url, connections=1)

    async def version(self) -> bytes | None:
        return cast("bytes | None", await self._client.hget(API_KEYS, API_KEYS_VERSION))

    async def read(self) -> KeysRead:
        fields = cast("dict[bytes, bytes]", await self._client.hgetall(API_KEYS))
        return KeysRead(fields.get(API_KEYS_VERSION.encode()), *records_of(fields))

    async def close(self) -> None:
        await self._client.aclose()
