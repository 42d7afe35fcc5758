"""The loads of a calibration: requests that together show each term of a step's cost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import grpc

from albireo.planning.workload import Sampling
from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc

PENALTIES = {"repetition_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": 0.1}
CONTROLS: dict[Sampling, dict[str, float]] = {
    "greedy": {"temperature": 0.0},
    "drawn": {"temperature": 0.8, "top_k": 50, "top_p": 0.9},
    "penalized": {"temperature": 0.8, "top_k": 50, "top_p": 0.9, **PENALTIES},
}


@dataclass(frozen=True, slots=True)
class Load:
    """``count`` requests of one kind, ``concurrency`` at a time. Lengths in tokens, drawn between two ends."""

    name: str
    count: int
    concurrency: int
    prompt: tuple[int, int]
    outputs: tuple[int, int]
    sampling: Sampling = "greedy"

    def within(self, longest: int) -> Load:
        """The same with requests of ``longest`` tokens at most."""
        outputs = min(self.outputs[0], longest // 2), min(self.outputs[1], longest // 2)
        prompt = min(self.prompt[0], longest - outputs[1]), min(self.prompt[1], longest - outputs[1])
        return replace(self, prompt=prompt, outputs=outputs)


def decode_load(rows: int, prompt: int, outputs: int, sampling: Sampling = "greedy") -> Load:
    """Requests that decode at the same time."""
    name = f"{rows} rows decode from {prompt}, {sampling}"
    return Load(name, rows, rows, (prompt, prompt), (outputs, outputs), sampling)


def prefill_load(prompt: int, count: int) -> Load:
    """Prompts one after the other."""
    return Load(f"prompts of {prompt}", count, 1, (prompt, prompt), (1, 1))


def full_loads(max_seqs: int) -> list[Load]:
    """Rows times contexts, prompts of one chunk and of several, decoding with chunks, and sampling."""
    rows = [rows for rows in (1, 2, 4, 8, 16, 32, 64, 128, 256) if rows <= max_seqs]
    return [
        decode_load(4, 64, 8),  # the first steps fill caches and buffers
        *(decode_load(count, 32, 24) for count in rows),
        *(decode_load(count, 1024, 16) for count in rows if count <= 16),
        *(prefill_load(prompt, 6) for prompt in (16, 48, 128, 256, 512)),
        prefill_load(1536, 2),
        Load("mixed steps", 3 * rows[-1] // 4, rows[-1] // 4, (16, 512), (8, 48)),
        *(decode_load(count, 32, 16, "drawn") for count in rows if count >= 4),
        *(decode_load(count, 32, 16, "penalized") for count in rows if count >= 4),
    ]


def quick_loads(max_seqs: int) -> list[Load]:
    """The least that every term is seen in."""
    rows = [rows for rows in (1, 4, 16) if rows <= max_seqs]
    return [
        decode_load(2, 16, 4),
        *(decode_load(count, 16, 12) for count in rows),
        decode_load(rows[-1], 256, 8),
        *(prefill_load(prompt, 3) for prompt in (32, 128, 512)),
        Load("mixed steps", 2 * rows[-1], rows[-1], (16, 128), (4, 16)),
        *(decode_load(count, 16, 8, "drawn") for count in rows[1:]),
        *(decode_load(count, 16, 8, "penalized") for count in rows[1:]),
    ]


def sampling_loads(loads: Sequence[Load]) -> list[Load]:
    """Those that decode from short contexts: enough for T4 alone."""
    return [load for load in loads if load.outputs[0] > 1 and load.prompt == (32, 32)]


def requests(load: Load, *, vocab_size: int, seed: int) -> list[api.GenerateRequest]:
    """Random prompts, so that the prefix cache has none of them; end tokens are ignored."""
    draw = random.Random(seed)
    return [
        api.GenerateRequest(
            token_ids=api.TokenIds(ids=[draw.randrange(vocab_size) for _ in range(draw.randint(*load.prompt))]),
            sampling=api.SamplingOptions(
                max_tokens=draw.randint(*load.outputs),
                ignore_eos=True,
                seed=draw.getrandbits(63),
                **CONTROLS[load.sampling],
            ),
        )
        for _ in range(load.count)
    ]


async def serve(target: str, load: Load, messages: Sequence[api.GenerateRequest]) -> None:
    """Runs the requests to their ends. Raises RuntimeError for one that fails."""
    free = asyncio.Semaphore(load.concurrency)

    async def one(stub: inference_pb2_grpc.InferenceStub, message: api.GenerateRequest) -> None:
        async with free:
            try:
                async for _ in stub.Generate(message, timeout=600):
                    pass
            except grpc.RpcError as error:
                raise RuntimeError(f"{load.name}: {error.code().name}: {error.details()}") from None

    async with grpc.aio.insecure_channel(target) as channel, asyncio.TaskGroup() as tasks:
        stub = inference_pb2_grpc.InferenceStub(channel)
        for message in messages:
            tasks.create_task(one(stub, message))
