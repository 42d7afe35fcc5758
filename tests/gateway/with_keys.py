"""Gateways that need API keys, and clients that have one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from albireo.contract.api_keys import ApiKey, digest_of, new_key
from albireo.models import TINY
from albireo.store.api_keys import ApiKeyStore
from albireo.v1 import inference_pb2 as api
from gateway.service import Gateway
from gateway.settings import GatewaySettings
from tests.gateway.conftest import Backend, Served


@dataclass(frozen=True)
class Key:
    """A key that is in Redis."""

    text: str
    key_id: str

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.text}"),)


def make_key(backend: Backend, tenant: str, **fields: Any) -> Key:
    text, key_id = new_key()
    own = {"least_priority": 0, "greatest_priority": 100, "created_at": 0, **fields}
    ApiKeyStore(backend.redis).put(key_id, ApiKey(digest=digest_of(text), tenant=tenant, **own))
    return Key(text, key_id)


async def refusal_to_start(backend: Backend, **options: object) -> str:
    """Why a gateway with these options does not start."""
    given = {"model": TINY, "port": 0, "redis_url": backend.url, "drain_seconds": 0, **options}
    gateway = Gateway(GatewaySettings.model_validate(given))
    with pytest.raises(ValueError) as refused:  # noqa: PT011  (the message is what is asked for)
        await gateway.start()
    await gateway.stop()
    return str(refused.value)


class Client:
    """Calls with a key."""

    def __init__(self, served: Served, key: Key) -> None:
        self._served = served
        self._headers = key.headers

    def generate(self, request: api.GenerateRequest) -> Any:
        return self._served.inference.Generate(request, timeout=30, metadata=self._headers)

    async def cancel(self, request_id: str) -> bool:
        request = api.CancelRequest(request_id=request_id)
        answer = await self._served.inference.Cancel(request, timeout=5, metadata=self._headers)
        return bool(answer.found)

    async def tokenize(self) -> grpc.StatusCode:
        try:
            await self._served.inference.Tokenize(
                api.TokenizeRequest(text="Hi"), timeout=5, metadata=self._headers
            )
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK
