"""Clients that never open their flow-control window (RFC 9113, 5.2), against those that are only slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from albireo.contract.plan import Finish
from albireo.v1 import inference_pb2 as api
from bench.hostile.http2 import Connection, message
from tests.gateway.conftest import Backend, Served, eventually, request, rest_of, serving

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")

NARROW = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))
READERS = 5


@pytest_asyncio.fixture(loop_scope="session")
async def served(backend: Backend) -> AsyncIterator[Served]:
    async with serving(backend, max_deadline_seconds=1.5, write_seconds=1.0) as found:
        yield found


async def test_their_calls_are_reset_and_their_requests_end(backend: Backend, served: Served) -> None:
    connection = await Connection.open("127.0.0.1", served.gateway.port, window=2000)
    names = [f"r{n}" for n in range(READERS)]
    streams = []
    for name in names:
        stream = connection.begin("/albireo.v1.Inference/Generate")
        body = request(request_id=name, max_tokens=900, logprobs=20).SerializeToString()
        connection.send(stream, message(body))
        streams.append(stream)
    await eventually(lambda: len(backend.inbox()) == READERS)
    backend.result(admitted={name: n for n, name in enumerate(names)})
    for _ in range(50):
        backend.result([(n, 7, Finish.NONE) for n in range(READERS)], logprobs=20)
    # An ordinary client is served meanwhile, and after it: the first call of a server and its last two are
    # let go later by grpc.aio, which is why there are some around those that are looked at.
    ordinary = 0
    async with asyncio.timeout(10):
        while not all(connection.streams[stream].over.is_set() for stream in streams):
            call = served.inference.Generate(request(request_id=f"o{ordinary}"), timeout=10)
            assert (await call.read()).HasField("accepted")
            await asyncio.sleep(0.05)
            call.cancel()
            ordinary += 1
    assert ordinary > 3
    for stream in streams:
        found = connection.streams[stream]
        assert found.reset is not None or found.status == grpc.StatusCode.CANCELLED.value[0]
        assert len(found.data) <= 2000
    await eventually(lambda: len(served.at.router) == 0)
    await eventually(lambda: set(names) <= {entry for entry in backend.inbox() if isinstance(entry, str)})
    await connection.close()


async def test_an_unary_call_is_reset_as_well(served: Served) -> None:
    connection = await Connection.open("127.0.0.1", served.gateway.port, window=10)
    streams = []
    for _ in range(6):
        stream = connection.begin("/albireo.v1.Inference/Tokenize")
        connection.send(stream, message(api.TokenizeRequest(text="Hi there, " * 50).SerializeToString()))
        streams.append(stream)
        await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        while not connection.streams[streams[2]].over.is_set():
            assert (await served.inference.Tokenize(api.TokenizeRequest(text="Hi"), timeout=5)).ids
            await asyncio.sleep(0.02)
    assert connection.streams[streams[2]].status == grpc.StatusCode.CANCELLED.value[0]
    await connection.close()


async def test_a_slow_client_that_reads_gets_everything_and_its_status(backend: Backend) -> None:
    async with serving(backend, channel_options=NARROW, write_seconds=1.0) as served:
        call = served.inference.Generate(request(max_tokens=900, logprobs=20), timeout=60)
        await call.read()
        for n in range(900):
            last = Finish.LENGTH if n == 899 else Finish.NONE
            backend.result([(1, 5 + n % 300, last)], admitted={"r": 1} if n == 0 else None, logprobs=20)
        ids: list[int] = []
        while (event := await call.read()).HasField("tokens"):
            ids += event.tokens.ids
            await asyncio.sleep(0.5)  # far longer in all than one message may take
        assert ids == [5 + n % 300 for n in range(900)]
        assert event.finished.reason == api.FINISH_REASON_LENGTH
        assert await rest_of(call) == []
        assert await call.code() is grpc.StatusCode.OK
