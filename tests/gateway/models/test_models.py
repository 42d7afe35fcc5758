"""A gateway that serves several models, which come and go while it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from albireo.contract.plan import Finish
from albireo.models import TINY
from albireo.v1 import control_pb2
from albireo.v1 import inference_pb2 as api
from gateway.server import INFERENCE
from tests.gateway.conftest import Backend, Served, eventually, request, rest_of, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

OTHER = "org/other-2.5"
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Checkpoints by name: one, of ``org/other-2.5``."""
    shutil.copytree(TINY, tmp_path / OTHER)
    return tmp_path


def asking(model: str, request_id: str = "r") -> api.GenerateRequest:
    found = request(request_id=request_id)
    found.model = model
    return found


async def models_of(served: Served) -> list[str]:
    info = await served.control.GetServerInfo(control_pb2.GetServerInfoRequest(), timeout=10)
    return list(info.models)


async def found(served: Served) -> None:
    """Waits until the gateway serves ``OTHER``."""
    await eventually(lambda: (model := served.gateway.models.find(OTHER)) is not None and model.alive)


async def health_of(served: Served, model: str) -> int:
    check = health_pb2.HealthCheckRequest(service=f"{INFERENCE}/{model}")
    answer = await health_pb2_grpc.HealthStub(served.channel).Check(check, timeout=10)
    status: int = answer.status
    return status


async def refused(served: Served, message: api.GenerateRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await served.inference.Generate(message, timeout=10).read()
    return error.value.code(), error.value.details() or ""


async def test_a_model_that_gets_a_scheduler_is_served_beside_the_own_one(
    backend: Backend, directory: Path
) -> None:
    async with serving(backend, models=directory) as served:
        assert await models_of(served) == ["tiny"]
        code, details = await refused(served, asking(OTHER))
        assert code is grpc.StatusCode.NOT_FOUND
        assert "'tiny' is" in details
        other = Backend(backend.url, OTHER)
        await found(served)
        assert await models_of(served) == [OTHER, "tiny"]
        assert await health_of(served, OTHER) == await health_of(served, "tiny") == SERVING
        streams: list[list[api.GenerateEvent]] = []
        for at, model in ((backend, ""), (other, OTHER)):  # one id, in the two models
            call = served.inference.Generate(asking(model), timeout=30)
            await call.read()
            at.result([(1, 50 + len(streams), Finish.LENGTH)], admitted={"r": 1})
            streams.append(await rest_of(call))
        assert [list(events[0].tokens.ids) for events in streams] == [[50], [51]]
        assert [len(at.submissions()) for at in (backend, other)] == [1, 1]
        other.redis.close()


async def test_models_fail_apart_from_each_other(backend: Backend, directory: Path) -> None:
    other = Backend(backend.url, OTHER)
    async with serving(backend, models=directory) as served:
        await found(served)
        calls = [served.inference.Generate(asking(model), timeout=30) for model in ("tiny", OTHER)]
        for call in calls:
            await call.read()
        other.redis.delete(other.keys.lease)
        events = await rest_of(calls[1])
        assert events[-1].error.code == grpc.StatusCode.UNAVAILABLE.value[0]
        assert await health_of(served, OTHER) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await health_of(served, "tiny") == await _whole(served) == SERVING
        backend.result([(1, 50, Finish.LENGTH)], admitted={"r": 1})
        assert list((await rest_of(calls[0]))[0].tokens.ids) == [50]
        code, details = await refused(served, asking(OTHER, "s"))
        assert (code, details) == (grpc.StatusCode.UNAVAILABLE, "no scheduler is alive")
        other.redis.close()


async def test_without_an_own_model_requests_name_one_where_there_are_several(
    backend: Backend, directory: Path
) -> None:
    shutil.copytree(TINY, directory / "tiny")
    async with serving(backend, has_model=False, model=None, models=directory) as served:
        await eventually(lambda: served.gateway.models.names == ["tiny"])
        await eventually(lambda: served.gateway.models.get("").info is not None)
        call = served.inference.Generate(request(), timeout=10)  # there is one
        assert (await call.read()).HasField("accepted")
        call.cancel()
        other = Backend(backend.url, OTHER)
        await eventually(lambda: len(served.gateway.models.names) == 2)
        code, details = await refused(served, request())
        assert (code, details) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            f"model: name one of '{OTHER}', 'tiny'",
        )
        other.redis.close()


async def test_a_cancellation_is_for_the_request_of_its_model(backend: Backend, directory: Path) -> None:
    other = Backend(backend.url, OTHER)
    async with serving(backend, models=directory) as served:
        await found(served)
        call = served.inference.Generate(asking(OTHER), timeout=30)
        await call.read()
        for model, known in (("tiny", False), ("", False), (OTHER, True)):
            message = api.CancelRequest(request_id="r", model=model)
            assert (await served.inference.Cancel(message, timeout=10)).found is known
        assert other.inbox()[1:] == ["r"]
        assert backend.inbox() == []
        other.redis.close()


async def test_a_model_whose_checkpoint_and_scheduler_are_gone_is_forgotten(
    backend: Backend, directory: Path
) -> None:
    other = Backend(backend.url, OTHER)
    async with serving(backend, models=directory) as served:
        await found(served)
        other.redis.delete(other.keys.lease)
        shutil.rmtree(directory / OTHER)
        await eventually(lambda: served.gateway.models.names == ["tiny"])
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await health_of(served, OTHER)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert await _whole(served) == SERVING
        # It follows nothing there any more.
        await eventually(lambda: not backend.redis.keys(other.keys.gateway("*")))
        other.redis.close()


async def test_a_checkpoint_that_cannot_be_loaded_harms_no_other(
    backend: Backend, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (directory / "broken").mkdir()
    (directory / "broken" / "config.json").write_text("{")
    for model in ("broken", OTHER):
        backend.announce_scheduler(model)
    async with serving(backend, models=directory) as served:
        await eventually(lambda: served.gateway.models.names == [OTHER, "tiny"])
        info = await served.control.GetServerInfo(control_pb2.GetServerInfoRequest(), timeout=10)
        assert list(info.other_models) == ["broken"]
    assert caplog.text.count("model broken is not served: ") == 1


async def _whole(served: Served) -> int:
    answer = await health_pb2_grpc.HealthStub(served.channel).Check(
        health_pb2.HealthCheckRequest(), timeout=10
    )
    status: int = answer.status
    return status
