"""Streams that run one after the other on many clients.

The measurement runs them in its event loop, first undisturbed, then while groups die.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import grpc

from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from bench.streams import Received, receive


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
        runs = (
            receive(stub, request, Received(number, f"once-{number}"), timeout)
            for number, request in enumerate(requests)
        )
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
            received = await receive(
                stub, requests[number], Received(number, f"turn{turn}-{number}"), timeout
            )
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
