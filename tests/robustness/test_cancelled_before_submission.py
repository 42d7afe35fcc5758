"""Requests that are cancelled at once cost the scheduler nothing, however many there are."""

from __future__ import annotations

import asyncio

import pytest

from albireo.contract.plan import Submission, public_name
from bench.hostile.http2 import Connection, message
from tests.gateway.conftest import Backend, eventually, request, serving

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLS = 100
"""So few that all have come while Redis is slow, on a busy machine too."""
MOST = 24
"""Submissions under way at once, as architecture.md says."""


async def test_many_cancelled_calls_while_redis_is_slow_leave_few_inbox_entries(backend: Backend) -> None:
    async with serving(backend) as served:
        backend.redis.client_pause(4000, all=False)  # writes; less than a submission waits for its turn
        connection = await Connection.open("127.0.0.1", served.gateway.port)
        streams = []
        for n in range(CALLS):
            stream = connection.begin("/albireo.v1.Inference/Generate")
            connection.send(stream, message(request(request_id=f"r{n}").SerializeToString()))
            streams.append(stream)
        await eventually(lambda: len(served.at.router) == CALLS)  # all wait for Redis or their turn
        for stream in streams:
            connection.reset(stream)
        await eventually(lambda: len(served.at.router) == 0)
        backend.redis.client_unpause()
        call = served.inference.Generate(request(request_id="after"), timeout=10)
        assert (await call.read()).HasField("accepted")
        entries = backend.inbox()
        submitted = {public_name(entry.request_id) for entry in entries if isinstance(entry, Submission)} - {
            "after"
        }
        await eventually(lambda: submitted <= {e for e in backend.inbox() if isinstance(e, str)})
        cancelled = [entry for entry in backend.inbox() if isinstance(entry, str)]
        assert len(submitted) <= MOST
        assert len(cancelled) <= MOST
        assert len(served.at.router) == 1
        await connection.close()


async def test_a_request_that_is_cancelled_at_once_is_not_submitted(backend: Backend) -> None:
    async with serving(backend) as served:
        connection = await Connection.open("127.0.0.1", served.gateway.port)
        for n in range(CALLS):
            stream = connection.begin("/albireo.v1.Inference/Generate")
            connection.send(stream, message(request(request_id=f"r{n}").SerializeToString()))
            connection.reset(stream)
        call = served.inference.Generate(request(request_id="after"), timeout=10)
        assert (await call.read()).HasField("accepted")
        await asyncio.sleep(0.05)  # nothing more may come
        names = [public_name(entry.request_id) for entry in backend.inbox() if isinstance(entry, Submission)]
        assert names == ["after"]
        assert len(backend.inbox()) == 1
        await connection.close()
