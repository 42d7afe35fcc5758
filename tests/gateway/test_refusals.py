"""Status codes of refused calls over the socket; none leaves anything in the gateway or in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from albireo.v1 import control_pb2
from albireo.v1 import inference_pb2 as api
from tests.gateway.conftest import Backend, Served, code_of, eventually, request, serving

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")

CODE = grpc.StatusCode
GENERATE = "/albireo.v1.Inference/Generate"
TOKENIZE = "/albireo.v1.Inference/Tokenize"
NOT_UTF8 = b"\x1a\x02\xff\xfe"  # field 3 (text) of GenerateRequest


@pytest_asyncio.fixture(loop_scope="session")
async def clean(served: Served) -> AsyncIterator[Served]:
    """A gateway whose refusals must leave no stream, no inbox entry and no count behind."""
    yield served
    assert len(served.at.router) == 0
    assert served.backend.inbox() == []
    assert served.backend.redis.get(served.backend.keys.waiting) is None
    assert list(served.backend.redis.scan_iter(match="*request*")) == []


async def test_a_bad_value_is_named(clean: Served) -> None:
    call = clean.inference.Generate(request(top_p=2.0), timeout=10)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() is CODE.INVALID_ARGUMENT
    assert (raised.value.details() or "").startswith("sampling.top_p: ")


async def test_more_branches_than_the_queue_ever_takes_are_refused_without_a_retry(backend: Backend) -> None:
    async with serving(backend, max_queue=3) as served:
        call = served.inference.Generate(request(n=4), timeout=10)
        assert await code_of(call) is CODE.INVALID_ARGUMENT
        assert "sampling.n: " in (await call.details() or "")
        assert len(served.at.router) == 0


async def test_every_branch_takes_a_place_in_the_queue(backend: Backend) -> None:
    async with serving(backend, max_queue=4) as served:
        first = served.inference.Generate(request(n=3, request_id="r0"), timeout=30)
        assert (await first.read()).HasField("accepted")
        assert backend.redis.get(backend.keys.waiting) == b"3"
        second = served.inference.Generate(request(n=2, request_id="r1"), timeout=30)
        assert await code_of(second) is CODE.RESOURCE_EXHAUSTED
        last = served.inference.Generate(request(request_id="r2"), timeout=30)
        assert (await last.read()).HasField("accepted")


@pytest.mark.parametrize("field", ["logprobs", "prompt_logprobs"])
async def test_a_simulated_device_has_no_probabilities(backend: Backend, field: str) -> None:
    backend.announce_model("sim")
    async with serving(backend) as served:
        call = served.inference.Generate(request("Hi", "r", **{field: 0}), timeout=10)
        assert await code_of(call) is CODE.FAILED_PRECONDITION
        assert (await call.details() or "").startswith(f"sampling.{field}: ")


async def test_a_model_that_is_not_served_is_not_found(clean: Served) -> None:
    elsewhere = [
        clean.inference.Generate(api.GenerateRequest(model="x", text="a")),
        clean.inference.Tokenize(api.TokenizeRequest(model="x", text="a")),
        clean.inference.Detokenize(api.DetokenizeRequest(model="x", ids=[1])),
        clean.control.GetModelInfo(control_pb2.GetModelInfoRequest(model="x")),
        clean.control.GetLoad(control_pb2.GetLoadRequest(model="x")),
    ]
    assert [await code_of(call) for call in elsewhere] == [CODE.NOT_FOUND] * 5
    assert await code_of(clean.inference.Cancel(api.CancelRequest(request_id="?"))) is CODE.INVALID_ARGUMENT
    assert not (await clean.inference.Cancel(api.CancelRequest(request_id="never-seen"))).found


@pytest.mark.parametrize("data", [NOT_UTF8, b"\x1a\x7fcut short", b"\xff" * 20])
async def test_invalid_protobuf_and_invalid_utf8_are_invalid_arguments(clean: Served, data: bytes) -> None:
    """Sent as raw bytes: no client library would let them out."""
    assert await code_of(_raw(clean).unary_stream(GENERATE)(data)) is CODE.INVALID_ARGUMENT
    watch = _raw(clean).unary_stream("/grpc.health.v1.Health/Watch")
    assert await code_of(watch(data.replace(b"\x1a", b"\x0a"))) is CODE.INVALID_ARGUMENT
    if data != NOT_UTF8:  # field 3 is another one in TokenizeRequest
        assert await code_of(_raw(clean).unary_unary(TOKENIZE)(data)) is CODE.INVALID_ARGUMENT


async def test_a_50_mb_message_is_refused_and_the_next_call_served(clean: Served) -> None:
    huge = api.GenerateRequest(text="x" * 50_000_000)
    assert await code_of(clean.inference.Generate(huge)) is CODE.RESOURCE_EXHAUSTED
    assert (await clean.inference.Tokenize(api.TokenizeRequest(text="ok"))).ids


async def test_an_unknown_method_is_unimplemented(clean: Served) -> None:
    assert await code_of(_raw(clean).unary_unary("/albireo.v1.Inference/Other")(b"")) is CODE.UNIMPLEMENTED


async def test_a_full_queue_is_refused_with_pushback(backend: Backend) -> None:
    async with serving(backend, max_queue=2) as served:
        waiting = [served.inference.Generate(request(request_id=f"r{n}"), timeout=30) for n in range(2)]
        for call in waiting:
            assert (await call.read()).HasField("accepted")
        call = served.inference.Generate(request(request_id="r2"), timeout=30)
        assert await code_of(call) is CODE.RESOURCE_EXHAUSTED
        trailing = dict((await call.trailing_metadata()) or ())
        assert int(trailing["grpc-retry-pushback-ms"]) > 0
        assert len(backend.inbox()) == 2
        assert len(served.at.router) == 2
        backend.redis.decr(backend.keys.waiting)  # one took a slot
        again = served.inference.Generate(request(request_id="r2"), timeout=30)
        assert (await again.read()).HasField("accepted")


async def test_a_request_id_is_accepted_once(served: Served) -> None:
    call = served.inference.Generate(request("Hi"), timeout=30)
    await call.read()
    for text in ("Hi", "another body"):
        assert await code_of(served.inference.Generate(request(text))) is CODE.ALREADY_EXISTS
    call.cancel()
    await eventually(lambda: served.backend.inbox()[1:] == ["r"])
    for text in ("Hi", "another body"):  # known by its record now, no longer by its stream
        assert await code_of(served.inference.Generate(request(text))) is CODE.ALREADY_EXISTS
    assert len(served.backend.inbox()) == 2
    served.backend.open_epoch()  # ends what ran: the same body may be sent again
    assert await code_of(served.inference.Generate(request("another body"))) is CODE.ALREADY_EXISTS
    again = served.inference.Generate(request("Hi"), timeout=30)
    assert (await again.read()).HasField("accepted")


async def test_a_missing_scheduler_is_unavailable(clean: Served) -> None:
    clean.backend.redis.delete(clean.backend.keys.lease)
    assert await code_of(clean.inference.Generate(request())) is CODE.UNAVAILABLE
    assert await code_of(clean.control.GetLoad(control_pb2.GetLoadRequest())) is CODE.UNAVAILABLE
    assert (await clean.inference.Tokenize(api.TokenizeRequest(text="still"))).ids


async def test_a_gateway_that_never_saw_a_group_is_unavailable(backend: Backend) -> None:
    backend.redis.flushall()
    async with serving(backend, has_model=False) as served:
        assert await code_of(served.inference.Generate(request())) is CODE.UNAVAILABLE
        info = served.control.GetModelInfo(control_pb2.GetModelInfoRequest())
        assert await code_of(info) is CODE.UNAVAILABLE
        server = await served.control.GetServerInfo(control_pb2.GetServerInfoRequest())
        assert list(server.models) == ["tiny"]


def _raw(served: Served) -> Any:
    """The channel, whose calls take bytes where no serializer is given; its types do not know that."""
    return served.channel
