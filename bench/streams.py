"""One stream of a measurement, and what it received.

Benchmarks whose clients compare the tokens of streams run them with it.
"""

from __future__ import annotations

import time
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
    began: float = field(default_factory=time.monotonic)
    ids: list[int] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)  # of messages with tokens
    counts: list[int] = field(default_factory=list)  # of tokens in each of these
    ended: float = 0.0
    cached: int = 0  # tokens of the prompt whose KV was there
    streamed: int = 0  # tokens sampled past the device's memory
    error: str = ""  # empty: it ended as the model or its length ended it

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Between two messages with tokens: when each began, and how many seconds it took."""
        return [(before, after - before) for before, after in pairwise(self.arrivals)]

    @property
    def ttft(self) -> float:
        """Seconds from the request to its first token; infinity without one."""
        return self.arrivals[0] - self.began if self.arrivals else float("inf")


async def receive(
    stub: inference_pb2_grpc.InferenceStub,
    request: api.GenerateRequest,
    received: Received,
    timeout: float,
) -> Received:
    """Runs a request to its end, as ``received.request_id``. Never raises for what goes wrong with it."""
    named = api.GenerateRequest()
    named.CopyFrom(request)
    named.request_id = received.request_id
    finished = False
    try:
        async for event in stub.Generate(named, timeout=timeout):
            kind = event.WhichOneof("event")
            if kind == "tokens":
                if event.tokens.offset != len(received.ids):
                    received.error = f"offset {event.tokens.offset} after {len(received.ids)} tokens"
                received.ids += event.tokens.ids
                received.arrivals.append(time.monotonic())
                received.counts.append(len(event.tokens.ids))
            elif kind == "error":
                received.error = received.error or event.error.message
            elif kind == "finished":
                finished = True
                received.cached = event.finished.usage.cached_prompt_tokens
                received.streamed = event.finished.usage.streamed_tokens
    except grpc.aio.AioRpcError as error:
        received.error = received.error or f"{error.code().name}: {error.details()}"
    received.ended = time.monotonic()
    if not finished and not received.error:
        received.error = "the stream ended without a last event"
    return received
