"""Sends requests over gRPC and records when their tokens arrive. Runs in the caller's event loop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import Any, NamedTuple

import grpc

from albireo.planning.result import RequestTimes
from albireo.planning.workload import SAMPLING_OPTIONS, Workload
from albireo.planning.workloads.arrivals import CONCURRENCY
from albireo.planning.workloads.prompts import prompt_ids
from albireo.runtime.access import ANYONE, Access
from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc


@dataclass(slots=True)
class Record:
    """One request: times in seconds of one clock; ``arrivals``: time and number of tokens of each message."""

    sent: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    ended: float = 0.0
    error: str = ""

    @property
    def tokens(self) -> int:
        return sum(count for _, count in self.arrivals)

    @property
    def times(self) -> RequestTimes:
        """A request that succeeded ends with its last token, one that failed when its error came."""
        if self.error or not self.arrivals:
            return RequestTimes(self.sent, ended=self.ended, error=self.error)
        return RequestTimes(self.sent, self.arrivals[0][0], self.arrivals[-1][0], self.tokens)


class LaterTurn(NamedTuple):
    """Of a conversation: which request follows, and how many seconds after the end of the one before."""

    number: int
    think: float


NO_TURNS: Mapping[int, LaterTurn] = {}


async def _run_one(
    stub: inference_pb2_grpc.InferenceStub,
    request: api.GenerateRequest,
    timeout: float,
    access: Access,
    so_far: list[int] | None,
) -> Record:
    """``so_far`` gets the prompt and the tokens that came, where another turn continues them."""
    record = Record(time.perf_counter())
    arrivals = record.arrivals
    if so_far is not None:
        so_far += request.token_ids.ids
    try:
        async for event in stub.Generate(request, timeout=timeout, metadata=access.metadata):
            tokens = len(event.tokens.ids)
            if tokens:
                arrivals.append((time.perf_counter(), tokens))
                if so_far is not None:
                    so_far += event.tokens.ids
            elif event.WhichOneof("event") == "error":
                record.error = event.error.message
    except grpc.RpcError as error:
        record.error = f"{error.code().name}: {error.details()}"
    record.ended = time.perf_counter()
    return record


async def run_load(
    target: str,
    requests: Sequence[api.GenerateRequest],
    *,
    concurrency: int = 0,
    at: Sequence[float] = (),
    later: Mapping[int, LaterTurn] = NO_TURNS,
    timeout: float = 600.0,
    access: Access = ANYONE,
    on_done: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Runs all requests: ``concurrency`` at a time, or each at its time; without both all at once.

    ``at``: seconds from the begin of the run, one per request, rising. ``later``: what follows a request, by
    its index; a conversation counts as one at a time. ``timeout``: seconds of each request.
    """
    free_slots = asyncio.Semaphore(concurrency or len(requests))
    records: list[Record] = []

    async def conversation(stub: inference_pb2_grpc.InferenceStub, index: int) -> None:
        request, turn = requests[index], later.get(index)
        try:
            while True:
                so_far: list[int] | None = [] if turn else None
                record = await _run_one(stub, request, timeout, access, so_far)
                records.append(record)
                on_done(record)
                if turn is None:
                    break
                await asyncio.sleep(turn.think)
                request, turn = _continued(so_far or [], requests[turn.number]), later.get(turn.number)
        finally:
            free_slots.release()

    async with access.async_channel(target) as channel, asyncio.TaskGroup() as tasks:
        stub = inference_pb2_grpc.InferenceStub(channel)
        began = time.perf_counter()
        not_first = {turn.number for turn in later.values()}
        for number in range(len(requests)):
            if number in not_first:
                continue
            if at:
                # By the clock, not one pause after another: each pause is a little too long.
                await asyncio.sleep(max(0.0, began + at[number] - time.perf_counter()))
            await free_slots.acquire()
            tasks.create_task(conversation(stub, number))
    return records


def _continued(so_far: list[int], request: api.GenerateRequest) -> api.GenerateRequest:
    """The request with the conversation before its own ids."""
    found = api.GenerateRequest()
    found.CopyFrom(request)
    found.token_ids.ids[:] = [*so_far, *request.token_ids.ids]
    return found


async def run_workload(
    target: str,
    workload: Workload,
    requests: Sequence[api.GenerateRequest],
    *,
    timeout: float = 600.0,
    access: Access = ANYONE,
    on_done: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Runs the ``requests`` that ``make_requests`` made of ``workload``, when they are due."""
    at = () if workload.concurrency else [request.at for request in workload.requests]
    later = {
        before: LaterTurn(index, workload.requests[index].think)
        for before, index in workload.next_turns.items()
    }
    return await run_load(
        target,
        requests,
        concurrency=workload.concurrency,
        at=at,
        later=later,
        timeout=timeout,
        access=access,
        on_done=on_done,
    )


async def warm_up(
    target: str,
    workload: Workload,
    count: int,
    vocab_size: int,
    *,
    controls: Mapping[str, Any] | None = None,
    timeout: float = 600.0,
    access: Access = ANYONE,
) -> None:
    """Runs ``count`` requests of the workload's lengths, as many at a time; prompts are others, so that
    the run itself finds none of them in the prefix cache."""
    alone = (replace(request, after=None) for request in workload.requests)
    lengths = tuple(islice(cycle(alone), count))
    requests = make_requests(
        replace(workload, requests=lengths), vocab_size, controls=controls, salt="warm-up"
    )
    concurrency = workload.concurrency or CONCURRENCY
    await run_load(target, requests, concurrency=concurrency, timeout=timeout, access=access)


def make_requests(
    workload: Workload, vocab_size: int, *, controls: Mapping[str, Any] | None = None, salt: str = ""
) -> list[api.GenerateRequest]:
    """Random token ids as prompts; end tokens are ignored so that output lengths hold. Of a later turn those
    that are its own: the others are known once the turn before has ended.

    ``controls``: fields of ``SamplingOptions`` that replace those of the workload. ``salt``: another one
    makes other prompts and seeds of the same lengths.
    """
    sampling = {**SAMPLING_OPTIONS[workload.sampling], **(controls or {})}
    seeds = random.Random(f"{workload.seed} {salt} sampling")
    return [
        api.GenerateRequest(
            token_ids=api.TokenIds(ids=ids),
            sampling=api.SamplingOptions(
                max_tokens=request.outputs, ignore_eos=True, seed=seeds.getrandbits(63), **sampling
            ),
        )
        for request, ids in zip(workload.requests, prompt_ids(workload, vocab_size, salt=salt), strict=True)
    ]
