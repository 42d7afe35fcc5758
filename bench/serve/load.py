"""Sends requests over gRPC and records when their tokens arrive. Runs in the caller's event loop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import grpc

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
    def tpot(self) -> float | None:
        """(last token - first token) / (tokens - 1); None for a request of one token or none."""
        tokens = self.tokens
        return (self.arrivals[-1][0] - self.arrivals[0][0]) / (tokens - 1) if tokens > 1 else None


async def _run_one(
    stub: inference_pb2_grpc.InferenceStub, request: api.GenerateRequest, timeout: float
) -> Record:
    record = Record(time.perf_counter())
    arrivals = record.arrivals
    try:
        async for event in stub.Generate(request, timeout=timeout):
            tokens = len(event.tokens.ids)
            if tokens:
                arrivals.append((time.perf_counter(), tokens))
            elif event.WhichOneof("event") == "error":
                record.error = event.error.message
    except grpc.RpcError as error:
        record.error = f"{error.code().name}: {error.details()}"
    record.ended = time.perf_counter()
    return record


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """Arrival times of a Poisson process of ``rate`` a second, in seconds from its start; endless."""
    draw, due = random.Random(seed), 0.0
    while True:
        due += draw.expovariate(rate)
        yield due


async def run_load(
    target: str,
    requests: Sequence[api.GenerateRequest],
    *,
    concurrency: int = 0,
    rate: float = 0.0,
    seed: int = 0,
    timeout: float = 600.0,
    on_done: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Runs all requests: ``concurrency`` at a time, or at ``rate`` a second with Poisson arrivals.

    ``timeout``: seconds of each request.
    """
    free_slots = asyncio.Semaphore(concurrency or len(requests))
    records: list[Record] = []

    async def one(stub: inference_pb2_grpc.InferenceStub, request: api.GenerateRequest) -> None:
        try:
            record = await _run_one(stub, request, timeout)
        finally:
            free_slots.release()
        records.append(record)
        on_done(record)

    async with grpc.aio.insecure_channel(target) as channel, asyncio.TaskGroup() as tasks:
        stub = inference_pb2_grpc.InferenceStub(channel)
        began, dues = time.perf_counter(), arrivals(rate, seed)
        for request in requests:
            if rate:
                # By the clock, not one pause after another: each pause is a little too long.
                await asyncio.sleep(max(0.0, began + next(dues) - time.perf_counter()))
            await free_slots.acquire()
            tasks.create_task(one(stub, request))
    return records


def make_requests(
    count: int,
    prompt_length: Callable[[random.Random], int],
    output_length: Callable[[random.Random], int],
    *,
    vocab_size: int,
    max_model_len: int,
    seed: int,
    temperature: float,
) -> list[api.GenerateRequest]:
    """Random token ids as prompts; end tokens are ignored so that output lengths hold.

    Lengths are cut to what the context takes.
    """
    draw = random.Random(seed)
    requests = []
    for _ in range(count):
        prompt = min(prompt_length(draw), max_model_len - 1)
        output = min(output_length(draw), max_model_len - prompt)
        requests.append(
            api.GenerateRequest(
                token_ids=api.TokenIds(ids=[draw.randrange(vocab_size) for _ in range(prompt)]),
                sampling=api.SamplingOptions(
                    max_tokens=output, ignore_eos=True, temperature=temperature, seed=draw.getrandbits(63)
                ),
            )
        )
    return requests
