"""The loads of a calibration: requests that together show each term of a step's cost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import grpc

from albireo.planning.workload import SAMPLING_OPTIONS, Sampling, Workload, WorkloadRequest
from albireo.planning.workloads.prompts import prompt_ids
from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc

SEED = 11
REQUEST_SECONDS = 600.0


def full_loads(max_seqs: int) -> list[Workload]:
    """Decoding rows times contexts, prompts of one chunk and of several, both in one step, and sampling.

    The first load warms up. All others are short, so that they can be served several times in turn.
    """
    rows = [rows for rows in (1, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256) if rows <= max_seqs]
    return [
        mixed_lengths(min(8, max_seqs), 16, longest=64),
        *(_decode(count, 32, 10) for count in rows),
        *(_decode(count, 1024, 10) for count in (1, 8)),
        _decode(rows[-1] // 2, 256, 10),
        *(_prompts(length, 3) for length in (16, 48, 128, 256, 512)),
        _prompts(1536, 1),
        *(mixed_lengths(rows[-1] // part, rows[-1] * 3 // 4, longest=384) for part in (4, 1)),
        *(
            _decode(count, 32, 8, kind)
            for kind in ("drawn", "penalized")
            for count in rows
            if count in (4, 16, 64, 128, 256)
        ),
    ]


def quick_loads(max_seqs: int) -> list[Workload]:
    """The least that shows every term, after one that warms up."""
    rows = [rows for rows in (1, 4, 16) if rows <= max_seqs]
    return [
        mixed_lengths(min(2, max_seqs), 4, longest=32),
        *(_decode(count, 16, 12) for count in rows),
        _decode(rows[-1], 256, 8),
        *(_prompts(length, 3) for length in (32, 128, 512)),
        mixed_lengths(rows[-1], 2 * rows[-1], longest=128),
        *(_decode(count, 16, 8, kind) for kind in ("drawn", "penalized") for count in rows[1:]),
    ]


def sampling_loads(loads: Sequence[Workload]) -> list[Workload]:
    """Those that show T4 best: rows that decode from short contexts. The first load warms up here too."""
    return [loads[0], *(load for load in loads[1:] if load.concurrency > 1 and load.longest <= 64)]


def cut(load: Workload, longest: int) -> Workload:
    """The same load with requests of at most ``longest`` tokens, two or more."""
    requests = (
        replace(r, prompt=min(r.prompt, longest - outputs), outputs=outputs)
        for r in load.requests
        if (outputs := min(r.outputs, longest // 2))
    )
    return replace(load, requests=tuple(requests))


async def serve(target: str, load: Workload, vocab_size: int, *, salt: str) -> None:
    """Runs a load, which is a closed loop, to its end. Each ``salt`` makes prompts of its own, of which none
    is in the prefix cache. Raises RuntimeError where a request fails."""
    free, draw = asyncio.Semaphore(load.concurrency), random.Random(load.seed)

    async def one(stub: inference_pb2_grpc.InferenceStub, request: api.GenerateRequest) -> None:
        async with free:
            try:
                async for _ in stub.Generate(request, timeout=REQUEST_SECONDS):
                    pass
            except grpc.RpcError as error:
                raise RuntimeError(f"{load.name}: {error.code().name}: {error.details()}") from None

    async with grpc.aio.insecure_channel(target) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        running = []
        for request, ids in zip(load.requests, prompt_ids(load, vocab_size, salt=salt), strict=True):
            options = api.SamplingOptions(
                max_tokens=request.outputs,
                ignore_eos=True,
                seed=draw.getrandbits(63),
                **SAMPLING_OPTIONS[load.sampling],
            )
            message = api.GenerateRequest(token_ids=api.TokenIds(ids=ids), sampling=options)
            running.append(one(stub, message))
        await asyncio.gather(*running)


def _decode(rows: int, prompt: int, outputs: int, sampling: Sampling = "greedy") -> Workload:
    """Requests that decode at the same time."""
    requests = (WorkloadRequest(0.0, prompt, outputs),) * rows
    return Workload(f"{rows} rows from {prompt}, {sampling}", requests, rows, sampling, SEED)


def _prompts(length: int, count: int) -> Workload:
    """Prompts one after the other, with nothing else in their steps."""
    return Workload(f"prompts of {length}", (WorkloadRequest(0.0, length, 1),) * count, 1, seed=SEED)


def mixed_lengths(concurrency: int, count: int, *, longest: int) -> Workload:
    """Requests of all lengths, so that chunks and decoding rows share steps."""
    draw = random.Random(SEED)
    requests = tuple(
        WorkloadRequest(0.0, draw.randint(8, longest), draw.randint(4, max(8, longest // 12)))
        for _ in range(count)
    )
    return Workload(f"mixed lengths at {concurrency}", requests, concurrency, seed=SEED)
