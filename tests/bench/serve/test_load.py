"""The load generator against a server that answers as the test wants."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from albireo.planning.workload import Workload, WorkloadRequest
from albireo.planning.workloads.draw import make_workload
from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from bench.serve.load import Record, make_requests, run_load, run_workload, warm_up

# grpc.aio has one poller for all loops, and it complains about those that are closed.
pytestmark = pytest.mark.asyncio(loop_scope="session")


class Server(inference_pb2_grpc.InferenceServicer):
    """Answers every request in ``seconds`` with as many tokens as it asks for, two a message."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.began: list[float] = []
        self.requests: list[api.GenerateRequest] = []
        self.running = self.most = 0

    async def Generate(self, request: api.GenerateRequest, context: Any) -> AsyncIterator[api.GenerateEvent]:
        self.began.append(time.perf_counter())
        self.requests.append(request)
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


async def test_requests_are_sent_when_they_are_due_whether_or_not_answers_come() -> None:
    # Slow enough to be kept by a machine whose cores are busy.
    workload = make_workload("fixed:4", "fixed:4", rate=60.0, num_requests=120, seed=3)
    async with server_of(1.5) as (server, target):
        records = await run_workload(target, workload, requests(120))
    assert server.most > 50  # no request waited for another one's answer
    sent = sorted(record.sent for record in records)
    dues = [request.at for request in workload.requests]
    late = [at - due for at, due in zip(sent, dues, strict=True)]
    # However long the machine stood still once: by other arrivals half would be further off.
    assert statistics.median(late) - min(late) < 2 / 60.0


async def test_a_closed_loop_runs_at_the_workloads_concurrency() -> None:
    workload = make_workload("fixed:4", "fixed:4", concurrency=3, num_requests=9)
    async with server_of(0.05) as (server, target):
        records = await run_workload(target, workload, make_requests(workload, 99))
    assert server.most == 3
    assert len(records) == 9


async def test_a_turn_is_sent_after_the_one_before_and_begins_with_it() -> None:
    turns = (
        WorkloadRequest(0, 3, 4),
        WorkloadRequest(0, 9, 2, after=0, think=0.1),
        WorkloadRequest(0, 5, 4),
        WorkloadRequest(0, 12, 2, after=1),
    )
    workload = Workload("w", turns, concurrency=1)
    own = [list(request.token_ids.ids) for request in make_requests(workload, 99)]
    assert [len(ids) for ids in own] == [3, 2, 5, 1]
    async with server_of(0.05) as (server, target):
        records = await run_workload(target, workload, make_requests(workload, 99))
    assert server.most == 1
    sent = [list(request.token_ids.ids) for request in server.requests]
    second = [*own[0], 5, 6, 5, 6, *own[1]]
    assert sent == [own[0], second, [*second, 5, 6, *own[3]], own[2]]
    assert records[1].sent - records[0].ended >= 0.1


async def test_a_warm_up_has_other_prompts_and_may_be_longer_than_the_workload() -> None:
    workload = make_workload("fixed:4", "fixed:4", num_requests=2)
    async with server_of(0) as (server, target):
        await warm_up(target, workload, 5, 99)
        assert len(server.began) == 5
        await warm_up(target, workload, 0, 99)
    assert len(server.began) == 5
    prompts = [list(request.token_ids.ids) for request in server.requests]
    for sent in make_requests(workload, 99):
        assert list(sent.token_ids.ids) not in prompts


async def test_failures_of_both_kinds_are_recorded() -> None:
    async with server_of(0) as (_, target):
        mixed = [*requests(1, 0), *requests(1, 1), *requests(1, 7)]
        records = await run_load(target, mixed, concurrency=1)
    assert [record.error for record in records] == ["RESOURCE_EXHAUSTED: full", "gone", ""]


async def test_a_request_that_takes_too_long_fails_alone() -> None:
    async with server_of(5) as (_, target):
        [record] = await run_load(target, requests(1), concurrency=1, timeout=0.2)
    assert record.error.startswith("DEADLINE_EXCEEDED")
