"""Whatever others leave in Redis, a gateway ends what depends on it with a retryable error and serves on."""

from __future__ import annotations

import time
from typing import cast

import grpc
import pytest

from albireo.contract.plan import Finish
from albireo.contract.result_rows import columns
from albireo.v1 import control_pb2
from albireo.v1 import inference_pb2 as api
from albireo.v1 import log_pb2 as log
from tests.gateway.conftest import Backend, Served, code_of, eventually, request, rest_of, serving

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    "entry",
    [
        b"\xff\xff",
        b"",
        log.ResultEntry(result=log.StepResult(**columns([0], [1], [5], []))).SerializeToString(),
        log.ResultEntry(result=log.StepResult(**columns([0], [1], [5], [77]))).SerializeToString(),
        log.ResultEntry(
            result=log.StepResult(ended=[log.Ended(request_id="r", reason=77)])  # type: ignore[arg-type]
        ).SerializeToString(),
    ],
    ids=["no protobuf", "empty", "lengths that differ", "no finish", "no reason"],
)
async def test_behind_a_result_that_cannot_be_read_a_stream_goes_on_in_another_group(
    served: Served, entry: bytes
) -> None:
    call = served.inference.Generate(request(), timeout=30)
    await call.read()
    served.backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
    assert list((await call.read()).tokens.ids) == [50]
    served.backend.append_raw(entry)
    served.backend.result([(1, 59, Finish.LENGTH)])  # the scheduler does not believe it either
    served.backend.close_group()
    served.backend.open_group("another")
    served.backend.result([(7, 51, Finish.LENGTH)], admitted={"r": 7}, num_outputs=1, group="another")
    events = await rest_of(call)
    assert [token for event in events for token in event.tokens.ids] == [51]
    assert events[-1].finished.reason == api.FINISH_REASON_LENGTH


async def test_a_model_that_cannot_be_read_stops_service_until_it_can(served: Served) -> None:
    keys, redis = served.backend.keys, served.backend.redis
    good = cast("bytes", redis.get(keys.served_model))
    redis.set(keys.served_model, b"\xff\xff")
    await eventually(lambda: not served.at.watch.serving)
    redis.set(keys.served_model, good)
    await eventually(lambda: served.at.watch.serving)


async def test_a_load_that_cannot_be_read_is_unavailable(served: Served) -> None:
    served.backend.redis.set(served.backend.keys.load, b"\xff\xff")
    call = served.control.GetLoad(control_pb2.GetLoadRequest())
    assert await code_of(call) is grpc.StatusCode.UNAVAILABLE


async def test_a_gateway_that_was_suspended_ends_its_streams_with_an_error(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others took it for dead, and ended its requests: that is not the answer to them."""
    monkeypatch.setattr("gateway.store.heartbeat.TTL_SECONDS", 0.5)
    monkeypatch.setattr("gateway.liveness.watch.WATCH_SECONDS", 0.05)
    async with serving(backend) as served:
        call = served.inference.Generate(request(), timeout=30)
        await call.read()
        backend.result(ended={"r": Finish.CANCELLED})
        time.sleep(0.6)  # the event loop stands still
        last = (await rest_of(call))[-1]
        assert last.error.retryable
        again = served.inference.Generate(request(request_id="r2"), timeout=30)
        assert (await again.read()).HasField("accepted")


async def test_a_gateway_that_stops_leaves_no_heartbeat(backend: Backend) -> None:
    async with serving(backend):
        assert len(list(backend.redis.scan_iter(f"{backend.keys.gateway('')}*"))) == 1
    assert list(backend.redis.scan_iter(f"{backend.keys.gateway('')}*")) == []
