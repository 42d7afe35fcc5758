"""Streams that decode while something else is measured: what they lose by it is a part of the measurement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np

from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from bench.kv_tiers.conversations import TIMEOUT_SECONDS
from bench.streams import Received, receive


@asynccontextmanager
async def other_streams(
    stub: inference_pb2_grpc.InferenceStub, count: int, vocab_size: int, *, prompt: int, outputs: int
) -> AsyncIterator[list[Received]]:
    """``count`` streams decode, each one request after the other, until the block is left.

    It is entered when each has its first token, with all that they receive. Raises ExceptionGroup as soon as
    one fails.
    """
    received: list[Received] = []

    async def stream(number: int) -> None:
        ids = np.random.default_rng(10**6 + number).integers(10, vocab_size, prompt).tolist()
        sampling = api.SamplingOptions(max_tokens=outputs, ignore_eos=True, temperature=0)
        request = api.GenerateRequest(token_ids=api.TokenIds(ids=ids), sampling=sampling)
        while True:
            one = Received(number, f"other{number}-{len(received)}")
            received.append(one)
            if (await receive(stub, request, one, TIMEOUT_SECONDS)).error:
                raise RuntimeError(f"{one.request_id}: {one.error}")

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(stream(number)) for number in range(count)]
        while len({one.number for one in received if one.arrivals}) < count:
            await asyncio.sleep(0.1)
        yield received
        for task in running:
            task.cancel()


def tokens_between(received: Sequence[Received], begin: float, end: float) -> int:
    """Tokens that came in a time."""
    arrivals = (pair for one in received for pair in zip(one.arrivals, one.counts, strict=True))
    return sum(count for at, count in arrivals if begin <= at < end)
