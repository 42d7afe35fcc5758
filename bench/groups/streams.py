"""Streams that run one after the other on many clients, and what each of them received.

The measurement runs them in its event loop, first undisturbed, then while groups die.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import grpc

from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc


@dataclass(slots=True)
class Received:
    """One stream: its ids and when they came, in seconds of ``time.monotonic``."""

    number: int  # of its request
    request_id: str
    began: float
    ids: list[int] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)  # of messages with tokens
    ended: float = 0.0
    error: str = ""  # empty: it ended as the model or its length ended it

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Between two messages with tokens: when each began, and how many seconds it took."""
        return [(before, after - before) for before, after in pairwise(self.arrivals)]


def make_requests(count: int, outputs: int) -> list[api.GenerateRequest]:
    """Every second one greedy, the others sampled with a seed and penalties; each of its own prompt."""
    requests = []
    for number in range(count):
        sampling = api.SamplingOptions(max_tokens=outputs, ignore_eos=True, seed=number)
        if number % 2:
            sampling.temperature, sampling.top_p, sampling.frequency_penalty = 0.9, 0.95, 0.2
        else:
            sampling.temperature = 0
        text = f"Tell me a story about a fox and {number} bears."
        chat = api.Chat(messages=[api.ChatMessage(role="user", content=text)])
        requests.append(api.GenerateRequest(chat=chat, sampling=sampling))
    return requests


async def run_once(target: str, requests: Sequence[api.GenerateRequest], timeout: float) -> list[Received]:
    """All requests at once."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        runs = (_receive(stub, number, request, "once", timeout) for number, request in enumerate(requests))
        return await asyncio.gather(*runs)


async def run_until(
    target: str,
    requests: Sequence[api.GenerateRequest],
    until: float,
    *,
    timeout: float,
    on_done: Callable[[Received], None],
) -> list[Received]:
    """As many clients as requests; each begins its own request again and again before ``until``, in seconds
    of ``time.monotonic``, and receives the last one to its end."""
    found: list[Received] = []

    async def client(stub: inference_pb2_grpc.InferenceStub, number: int) -> None:
        turn = 0
        while time.monotonic() < until:
            received = await _receive(stub, number, requests[number], f"turn{turn}", timeout)
            found.append(received)
            on_done(received)
            turn += 1
            if received.error:
                await asyncio.sleep(1.0)  # a refusal must not become a flood

    async with grpc.aio.insecure_channel(target) as channel, asyncio.TaskGroup() as tasks:
        stub = inference_pb2_grpc.InferenceStub(channel)
        for number in range(len(requests)):
            tasks.create_task(client(stub, number))
    return found


async def _receive(
    stub: inference_pb2_grpc.InferenceStub,
    number: int,
    request: api.GenerateRequest,
    label: str,
    timeout: float,
) -> Received:
    named = api.GenerateRequest()
    named.CopyFrom(request)
    named.request_id = f"{label}-{number}"
    received = Received(number, named.request_id, time.monotonic())
    finished = False
    try:
        async for event in stub.Generate(named, timeout=timeout):
            kind = event.WhichOneof("event")
            if kind == "tokens":
                if event.tokens.offset != len(received.ids):
                    received.error = f"offset {event.tokens.offset} after {len(received.ids)} tokens"
                received.ids += event.tokens.ids
                received.arrivals.append(time.monotonic())
            elif kind == "error":
                received.error = received.error or event.error.message
            elif kind == "finished":
                finished = True
    except grpc.aio.AioRpcError as error:
        received.error = received.error or f"{error.code().name}: {error.details()}"
    received.ended = time.monotonic()
    if not finished and not received.error:
        received.error = "the stream ended without a last event"
    return received
