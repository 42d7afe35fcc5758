"""The API keys of a deployment in Redis, for commands. Gateways: ``gateway/store/api_keys.py``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final, cast

import redis

from albireo.contract import api_keys
from albireo.contract.api_keys import ApiKey
from albireo.contract.keys import API_KEYS, API_KEYS_VERSION

REMOVE: Final = """
-- KEYS api_keys   ARGV id version_field version
local found = redis.call('HDEL', KEYS[1], ARGV[1])  -- takes no memory: the script goes through at the limit
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return found
"""


class ApiKeyStore:
    """All keys. Raises redis-py's RedisError where Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def put(self, key_id: str, key: ApiKey) -> None:
        """Adds a key: gateways accept it within a second."""
        self._client.hset(API_KEYS, items=[key_id, api_keys.to_bytes(key), API_KEYS_VERSION, _new_version()])

    def remove(self, key_id: str) -> bool:
        """Revokes a key: gateways refuse it within a second. False where there is none of this id."""
        return bool(self._client.eval(REMOVE, 1, API_KEYS, key_id, API_KEYS_VERSION, _new_version()))

    def all(self) -> tuple[dict[str, ApiKey], list[str]]:
        """Keys by id, and a line for each record that cannot be read."""
        return records_of(cast("dict[bytes, bytes]", self._client.hgetall(API_KEYS)))


def records_of(fields: Mapping[bytes, bytes]) -> tuple[dict[str, ApiKey], list[str]]:
    """Of the fields of the hash: keys by id, and a line for each record that cannot be read."""
    found, problems = {}, []
    for name, data in fields.items():
        key_id = name.decode(errors="replace")
        if key_id == API_KEYS_VERSION:
            continue
        try:
            found[key_id] = api_keys.from_bytes(data)
        except ValueError as error:
            problems.append(f"API key {key_id}: {error}")
    return found, problems


def _new_version() -> str:
    """Random, not counted: a Redis that was emptied and filled again must not come to the same one."""
    return secrets.token_hex(8)
