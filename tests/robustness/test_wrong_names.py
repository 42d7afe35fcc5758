"""A gateway with a model name that is not served: its answers name those that are."""

from __future__ import annotations

import grpc
import pytest

from albireo.v1 import control_pb2
from tests.gateway.conftest import Backend, request, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("own", ["tinny", "ti"])
async def test_a_gateway_without_a_scheduler_names_other_models_to_its_log_and_its_clients(
    backend: Backend, own: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend.announce_scheduler("org/other-2.5")
    async with serving(backend, has_model=False, model_name=own) as served:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.inference.Generate(request(), timeout=10).read()
        info = await served.control.GetServerInfo(control_pb2.GetServerInfoRequest(), timeout=10)
        for call in (
            served.control.GetModelInfo(control_pb2.GetModelInfoRequest(), timeout=10),
            served.control.GetLoad(control_pb2.GetLoadRequest(), timeout=10),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="'tiny'"):
                await call
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    for text in (refused.value.details() or "", caplog.text):
        assert "'org/other-2.5', 'tiny'" in text
        assert "--model-name" in text
    assert (list(info.models), list(info.other_models)) == ([own], ["org/other-2.5", "tiny"])


async def test_a_client_with_a_wrong_name_is_given_those_that_are_there(backend: Backend) -> None:
    backend.announce_scheduler("org/other-2.5")
    async with serving(backend) as served:
        wrong = request()
        wrong.model = "tinny"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.inference.Generate(wrong, timeout=10).read()
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    for name in ("'tinny'", "'tiny'", "'org/other-2.5'"):
        assert name in (refused.value.details() or "")


async def test_a_gateway_with_a_scheduler_does_not_doubt_its_name(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.announce_scheduler("other")
    backend.redis.delete(backend.keys.served_model)
    async with serving(backend, has_model=False) as served:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.inference.Generate(request(), timeout=10).read()
        info = await served.control.GetServerInfo(control_pb2.GetServerInfoRequest(), timeout=10)
    assert refused.value.details() == "no worker group has joined"
    assert list(info.other_models) == ["other"]
    assert "other" not in caplog.text
