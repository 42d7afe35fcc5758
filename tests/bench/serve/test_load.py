"""The load generator against a server that answers as the test wants."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from bench.serve.load import Record, arrivals, run_load

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")


class Server(inference_pb2_grpc.InferenceServicer):
    """Answers every request in ``seconds`` with as many tokens as it asks for, two a message."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.began: list[float] = []
        self.running = self.most = 0

    async def Generate(self, request: api.GenerateRequest, context: Any) -> AsyncIterator[api.GenerateEvent]:
        self.began.append(time.perf_counter())
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self._seconds)
        self.running -= 1
        if request.token_ids.ids[0] == 0:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        yield api.GenerateEvent(accepted=api.Accepted(request_id="r"))
        if request.token_ids.ids[0] == 1:
            yield api.GenerateEvent(error=api.Error(code=14, message="gone"))
            return
        for _ in range(request.sampling.max_tokens // 2):
            yield api.GenerateEvent(tokens=api.Tokens(ids=[5, 6]))
        yield api.GenerateEvent(finished=api.Finished(reason="FINISH_REASON_LENGTH"))


@asynccontextmanager
async def server_of(seconds: float) -> AsyncIterator[tuple[Server, str]]:
    servicer, server = Server(seconds), grpc.aio.server()
    inference_pb2_grpc.add_InferenceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(0)


def requests(count: int, first: int = 7, tokens: int = 4) -> list[api.GenerateRequest]:
    sampling = api.SamplingOptions(max_tokens=tokens)
    return [api.GenerateRequest(token_ids=api.TokenIds(ids=[first]), sampling=sampling) for _ in range(count)]


async def test_concurrency_is_reached_and_never_exceeded() -> None:
    done: list[Record] = []
    async with server_of(0.05) as (server, target):
        records = await run_load(target, requests(12), concurrency=4, on_done=done.append)
    assert server.most == 4
    assert [record.tokens for record in records] == [4] * 12
    assert [len(record.arrivals) for record in records] == [2] * 12
    assert done == records
    for record in records:
        assert record.sent + 0.05 <= record.arrivals[0][0] <= record.arrivals[-1][0] <= record.ended


async def test_arrivals_are_poisson_whether_or_not_answers_come() -> None:
    rate, count = 60.0, 120  # slow enough to be kept by a machine whose cores are busy
    async with server_of(1.5) as (server, target):
        records = await run_load(target, requests(count), rate=rate, seed=3)
    assert server.most > 50  # no request waited for another one's answer
    sent = sorted(record.sent for record in records)
    assert (sent[-1] - sent[0]) == pytest.approx(count / rate, rel=0.25)
    dues = list(itertools.islice(arrivals(rate, 3), count))
    gaps = [after - before for before, after in itertools.pairwise(dues)]
    # Gaps of a Poisson process vary as much as they are long; equal ones would not vary at all.
    assert 0.5 < statistics.stdev(gaps) / statistics.mean(gaps) < 2
    # And so it was sent, however long the machine stood still once: by equal gaps half would be further off.
    late = [at - due for at, due in zip(sent, dues, strict=True)]
    assert statistics.median(late) - min(late) < 2 / rate


async def test_failures_of_both_kinds_are_recorded() -> None:
    async with server_of(0) as (_, target):
        mixed = [*requests(1, 0), *requests(1, 1), *requests(1, 7)]
        records = await run_load(target, mixed, concurrency=1)
    assert [record.error for record in records] == ["RESOURCE_EXHAUSTED: full", "gone", ""]


async def test_a_request_that_takes_too_long_fails_alone() -> None:
    async with server_of(5) as (_, target):
        [record] = await run_load(target, requests(1), concurrency=1, timeout=0.2)
    assert record.error.startswith("DEADLINE_EXCEEDED")
