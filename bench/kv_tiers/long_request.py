"""A request whose context does not fit into the device's KV memory, as a client sends it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from bench.streams import Received, receive

TIMEOUT_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class LongRequest:
    """Random token ids, the same ones for the same number; greedy."""

    number: int
    vocab_size: int
    prompt: int
    outputs: int

    def message(self) -> api.GenerateRequest:
        ids = np.random.default_rng(self.number).integers(10, self.vocab_size, self.prompt).tolist()
        sampling = api.SamplingOptions(max_tokens=self.outputs, ignore_eos=True, temperature=0)
        return api.GenerateRequest(token_ids=api.TokenIds(ids=ids), sampling=sampling)


@dataclass(frozen=True, slots=True)
class Alone:
    """What a request brought that ran alone."""

    ids: list[int]
    token_seconds: float  # mean, from the first token to the last
    ttft: float  # seconds
    streamed: int  # tokens


async def ask(stub: inference_pb2_grpc.InferenceStub, request: LongRequest, name: str) -> Alone:
    """Raises RuntimeError where the stream fails."""
    received = Received(request.number, name)
    await receive(stub, request.message(), received, TIMEOUT_SECONDS)
    if received.error:
        raise RuntimeError(f"{name}: {received.error}")
    seconds = received.arrivals[-1] - received.arrivals[0]
    return Alone(received.ids, seconds / sum(received.counts[1:]), received.ttft, received.streamed)
