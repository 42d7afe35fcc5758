"""Calls whose request does not come, or does not end, or is not one message. Statuses are those of gRPC's own
table, https://github.com/grpc/grpc/blob/master/doc/statuscodes.md: "request cardinality violation (method
requires exactly one request but client sent some other number)" is UNIMPLEMENTED."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from albireo.v1 import inference_pb2 as api
from bench.hostile.http2 import Connection, message
from gateway.calls.interceptor import MAX_REFLECTION_CALLS
from gateway.server import MAX_OTHER_CALLS
from tests.gateway.conftest import Backend, Served, eventually, request, serving

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")

GENERATE = "/albireo.v1.Inference/Generate"
TOKENIZE = "/albireo.v1.Inference/Tokenize"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
HEALTH = "/grpc.health.v1.Health/Check"
MAX_ARRIVING = 1024  # a gateway's default
CALLS_OF_EACH = 2000
ONE = message(api.TokenizeRequest(text="Hi").SerializeToString())


def number(code: grpc.StatusCode) -> int:
    value: int = code.value[0]
    return value


@pytest_asyncio.fixture(loop_scope="session")
async def connection(served: Served) -> AsyncIterator[Connection]:
    found = await Connection.open("127.0.0.1", served.gateway.port)
    yield found
    await found.close()


@pytest.mark.parametrize("method", [GENERATE, TOKENIZE, HEALTH])
@pytest.mark.parametrize("body", [b"", ONE * 2], ids=["no message", "two messages"])
async def test_a_method_with_one_request_takes_exactly_one(
    connection: Connection, method: str, body: bytes
) -> None:
    stream = connection.begin(method)
    connection.send(stream, body)
    assert (await connection.over(stream, 5)).status == number(grpc.StatusCode.UNIMPLEMENTED)


def ended(connection: Connection, streams: list[int]) -> list[int]:
    """The statuses that have come."""
    found = [connection.streams[stream].status for stream in streams]
    return [status for status in found if status is not None]


async def test_calls_with_headers_alone_block_no_other_client(served: Served, connection: Connection) -> None:
    """More of them than the gateway serves calls at all, against its defaults."""
    begun = []
    for _ in range(CALLS_OF_EACH):
        begun += [connection.begin(GENERATE), connection.begin(TOKENIZE)]
        connection.begin(REFLECTION)  # may send several requests, each in its time: none ends another
    await connection.drain()
    # All have come, and as many wait as may; the others were refused, or cut by HTTP/2's own limit.
    over = [connection.streams[stream].over for stream in begun]
    await eventually(lambda: [one.is_set() for one in over].count(False) == MAX_ARRIVING, 60)
    health = health_pb2_grpc.HealthStub(served.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=20)).status
    for name in range(5):
        call = served.inference.Generate(request(request_id=f"r{name}"), timeout=20)
        assert (await call.read()).HasField("accepted")
        call.cancel()


async def test_a_call_that_begins_ends_the_oldest_that_waits(backend: Backend) -> None:
    async with serving(backend, max_arriving=8, message_seconds=60) as served:
        connection = await Connection.open("127.0.0.1", served.gateway.port)
        begun = [connection.begin(GENERATE) for _ in range(20)]
        await eventually(lambda: len(ended(connection, begun)) == 12)
        # Requests that have begun to come, or lack only their end, wait as well.
        half, unended = connection.begin(TOKENIZE), connection.begin(TOKENIZE)
        connection.send(half, ONE[:-1], end=False)
        connection.send(unended, ONE, end=False)
        await eventually(lambda: len(ended(connection, begun)) == 14)
        assert set(ended(connection, begun)) == {number(grpc.StatusCode.RESOURCE_EXHAUSTED)}
        assert ended(connection, [half, unended]) == []
        await connection.close()


async def test_a_request_that_is_not_whole_in_time_ends(backend: Backend) -> None:
    async with serving(backend, message_seconds=0.3) as served:
        connection = await Connection.open("127.0.0.1", served.gateway.port)
        begun, half, unended = (connection.begin(method) for method in (GENERATE, TOKENIZE, TOKENIZE))
        connection.send(half, ONE[:-1], end=False)
        connection.send(unended, ONE, end=False)
        statuses = [(await connection.over(stream)).status for stream in (begun, half, unended)]
        await connection.close()
    assert statuses == [number(grpc.StatusCode.DEADLINE_EXCEEDED)] * 3


async def test_reflection_streams_without_requests_block_no_other_call(backend: Backend) -> None:
    """As many as all calls that a gateway answers at once: reflection alone is busy then."""
    async with serving(backend, max_streams=1) as served:
        await eventually(lambda: served.at.served.info is not None)
        connection = await Connection.open("127.0.0.1", served.gateway.port)
        begun = [connection.begin(REFLECTION) for _ in range(1 + MAX_OTHER_CALLS)]
        await eventually(lambda: len(ended(connection, begun)) == len(begun) - MAX_REFLECTION_CALLS, 60)
        assert set(ended(connection, begun)) == {number(grpc.StatusCode.RESOURCE_EXHAUSTED)}
        health = health_pb2_grpc.HealthStub(served.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=20)).status
        call = served.inference.Generate(request(request_id="r"), timeout=20)
        assert (await call.read()).HasField("accepted")
        call.cancel()
        await connection.close()


async def test_a_reflection_stream_without_requests_ends(backend: Backend) -> None:
    async with serving(backend, message_seconds=0.3) as served:
        connection = await Connection.open("127.0.0.1", served.gateway.port)
        stream = connection.begin(REFLECTION)
        assert (await connection.over(stream, 5)).status == number(grpc.StatusCode.OK)
        await connection.close()
