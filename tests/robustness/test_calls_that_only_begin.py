"""Calls whose request does not come, or does not end, or is not one message. Statuses are those of gRPC's own
table, https://github.com/grpc/grpc/blob/master/doc/statuscodes.md: "request cardinality violation (method
requires exactly one request but client sent some other number)" is UNIMPLEMENTED."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from albireo.v1 import inference_pb2 as api
from bench.hostile.http2 import Connection, message
from tests.gateway.conftest import Backend, Served, eventually, request, serving

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")

GENERATE = "/albireo.v1.Inference/Generate"
TOKENIZE = "/albireo.v1.Inference/Tokenize"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
HEALTH = "/grpc.health.v1.Health/Check"
ONE = message(api.TokenizeRequest(text="Hi").SerializeToString())


def number(code: grpc.StatusCode) -> int:
    value: int = code.value[0]
    return value


@pytest_asyncio.fixture(loop_scope="session")
async def connection(served: Served) -> AsyncIterator[Connection]:
    found = await Connection.open("127.0.0.1", served.gateway.port)
    yield found
    await found.close()


@pytest.fixture
def backend(redis_url: str) -> Backend:
    return Backend(redis_url)


@pytest_asyncio.fixture(loop_scope="session")
async def served(backend: Backend) -> AsyncIterator[Served]:
    async with serving(backend) as found:
        await eventually(lambda: found.gateway.follower.group is not None)
        yield found


@pytest.mark.parametrize("method", [GENERATE, TOKENIZE, HEALTH])
@pytest.mark.parametrize("body", [b"", ONE * 2], ids=["no message", "two messages"])
async def test_a_method_with_one_request_takes_exactly_one(
    connection: Connection, method: str, body: bytes
) -> None:
    stream = connection.begin(method)
    connection.send(stream, body)
    assert (await connection.over(stream, 5)).status == number(grpc.StatusCode.UNIMPLEMENTED)


async def test_headers_alone_keep_nobody_out(served: Served, connection: Connection) -> None:
    """More of them than the gateway serves calls at all, against its defaults."""
    begun = [connection.begin(method) for _ in range(2000) for method in (GENERATE, TOKENIZE, REFLECTION)]
    await connection.drain()
    await asyncio.wait_for(_some_refused(connection, begun), 20)
    health = health_pb2_grpc.HealthStub(served.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status
    for name in range(5):
        call = served.inference.Generate(request(request_id=f"r{name}"), timeout=5)
        assert (await call.read()).HasField("accepted")
        call.cancel()


async def _some_refused(connection: Connection, begun: list[int]) -> None:
    while not any(connection.streams[stream].status is not None for stream in begun):
        await asyncio.sleep(0.05)


async def test_the_oldest_makes_room_and_the_rest_run_out_of_time(backend: Backend) -> None:
    async with serving(backend, max_arriving=8, message_seconds=0.5) as served:
        connection = await Connection.open("127.0.0.1", served.gateway.port)
        begun = [connection.begin(GENERATE) for _ in range(20)]
        await asyncio.sleep(0.1)
        half = connection.begin(TOKENIZE)
        connection.send(half, ONE[:-1], end=False)
        unended = connection.begin(TOKENIZE)
        connection.send(unended, ONE, end=False)
        statuses = [(await connection.over(stream, 5)).status for stream in [*begun, half, unended]]
        await connection.close()
    exhausted, late = number(grpc.StatusCode.RESOURCE_EXHAUSTED), number(grpc.StatusCode.DEADLINE_EXCEEDED)
    # The server takes what comes together in an order of its own.
    assert sorted(statuses[:20], key=str) == [late] * 6 + [exhausted] * 14
    assert statuses[20:] == [late] * 2


async def test_a_reflection_stream_that_asks_nothing_ends(backend: Backend) -> None:
    async with serving(backend, message_seconds=0.3) as served:
        connection = await Connection.open("127.0.0.1", served.gateway.port)
        stream = connection.begin(REFLECTION)
        assert (await connection.over(stream, 5)).status == number(grpc.StatusCode.OK)
        await connection.close()
