"""Conversations: each turn's prompt is all that came before, and some new tokens.

The measurements of KV tiers run them as clients of a stack.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from bench.streams import Received, receive

TIMEOUT_SECONDS = 600.0


@dataclass(slots=True)
class Conversation:
    """Token ids of one conversation so far. Random ids, the same ones for the same number."""

    number: int
    vocab_size: int
    first: int = 0  # tokens of its first prompt; 0: as many as that turn says
    ids: list[int] = field(default_factory=list)  # prompts and answers
    turns: list[Received] = field(default_factory=list)

    async def turn(
        self, stub: inference_pb2_grpc.InferenceStub, label: str, *, prompt: int, outputs: int
    ) -> Received:
        """Sends all so far and ``prompt`` new tokens; the answer joins the conversation. Every second
        conversation is greedy, the others are sampled with a seed of their own.

        Raises RuntimeError where the stream fails."""
        draw = np.random.default_rng((self.number, len(self.turns)))
        new = prompt if self.turns or not self.first else self.first
        self.ids += draw.integers(10, self.vocab_size, new).tolist()
        sampling = api.SamplingOptions(max_tokens=outputs, ignore_eos=True, seed=self.number, temperature=0)
        if self.number % 2:
            sampling.temperature, sampling.top_p = 0.9, 0.95
        request = api.GenerateRequest(token_ids=api.TokenIds(ids=self.ids), sampling=sampling)
        received = Received(self.number, f"{label}-{len(self.turns)}-{self.number}")
        await receive(stub, request, received, TIMEOUT_SECONDS)
        if received.error:
            raise RuntimeError(f"{received.request_id}: {received.error}")
        self.ids += received.ids
        self.turns.append(received)
        return received


async def round_of_turns(
    stub: inference_pb2_grpc.InferenceStub,
    conversations: Sequence[Conversation],
    label: str,
    *,
    at_once: int,
    prompt: int,
    outputs: int,
) -> list[Received]:
    """One turn of each conversation, in their order, ``at_once`` of them at a time."""
    free = asyncio.Semaphore(at_once)

    async def turn(conversation: Conversation) -> Received:
        async with free:
            return await conversation.turn(stub, label, prompt=prompt, outputs=outputs)

    return list(await asyncio.gather(*map(turn, conversations)))
