"""Conversations that come back after others have taken their blocks: TTFT with a disk against without.

    python -m bench.kv_tiers.returns /tmp/qwen

Three runs with the same conversations, which come back one by one, while other streams decode:

- *memory*: device blocks for all. The conversations begin here, and are written to the disk on the way.
- *disk*: a stack that is started anew on the same disk, with device blocks for a quarter.
- *recompute*: device blocks for a quarter, no disk.

The first says how fast the other streams are where nothing is fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from albireo.contract.plan import BLOCK_SIZE
from albireo.v1 import inference_pb2 as api
from albireo.v1 import inference_pb2_grpc
from bench.kv_tiers.conversations import TIMEOUT_SECONDS, Conversation, round_of_turns
from bench.machine import machine
from bench.stack import running_stack
from bench.streams import Received, receive
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes

PROMPT, OUTPUTS = 16, 16
"""Of a turn that comes back."""
OTHER_PROMPT = 64
PAUSE_SECONDS = 0.5
"""From the end of one turn to the next conversation that comes back."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one run has brought."""

    turns: list[Received]
    others: float  # tokens/s of the other streams while conversations came back


async def _others(
    stub: inference_pb2_grpc.InferenceStub, count: int, vocab_size: int, received: list[Received]
) -> None:
    """Streams that decode until they are cancelled."""

    async def stream(number: int) -> None:
        ids = np.random.default_rng(10**6 + number).integers(10, vocab_size, OTHER_PROMPT).tolist()
        sampling = api.SamplingOptions(max_tokens=1500, ignore_eos=True, temperature=0)
        request = api.GenerateRequest(token_ids=api.TokenIds(ids=ids), sampling=sampling)
        turn = 0
        while True:
            received.append(Received(number, f"other{turn}-{number}"))
            if (await receive(stub, request, received[-1], TIMEOUT_SECONDS)).error:
                raise RuntimeError(f"{received[-1].request_id}: {received[-1].error}")
            turn += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(stream(number))


def _tokens_between(received: Sequence[Received], begin: float, end: float) -> int:
    arrivals = (pair for one in received for pair in zip(one.arrivals, one.counts, strict=True))
    return sum(count for at, count in arrivals if begin <= at < end)


async def _run(target: str, conversations: list[Conversation], label: str, others: int, tokens: int) -> Found:
    """Conversations that have not begun begin with ``tokens`` before the others do."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        new = [conversation for conversation in conversations if not conversation.turns]
        await round_of_turns(stub, new, label, at_once=4, prompt=tokens - OUTPUTS, outputs=OUTPUTS)
        received: list[Received] = []
        running = asyncio.create_task(_others(stub, others, conversations[0].vocab_size, received))
        try:
            while not running.done() and sum(bool(one.arrivals) for one in received) < others:
                await asyncio.sleep(0.1)
            begin, turns = time.monotonic(), []
            for conversation in conversations:
                turns.append(await conversation.turn(stub, label, prompt=PROMPT, outputs=OUTPUTS))
                await asyncio.sleep(PAUSE_SECONDS)
            end = time.monotonic()
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        return Found(turns, _tokens_between(received, begin, end) / (end - begin))


def _drop_cached_pages(directory: Path) -> None:
    """The disk's files leave the operating system's memory, so that they are read from the disk."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(
    checkpoint: Path, count: int, tokens: int, others: int, without: int, report: Console
) -> dict[str, Found]:
    """``without``: conversations that come back in the run without a disk."""
    config = ModelConfig.from_dir(checkpoint)
    block = block_bytes(config, 1, torch.bfloat16)
    # Of each conversation with its turns, and of the other streams.
    blocks = -(-(tokens + 4 * (PROMPT + OUTPUTS)) // BLOCK_SIZE)
    running = others * -(-(OTHER_PROMPT + 1500) // BLOCK_SIZE)
    memory = {"all": str((count * blocks + 2 * running) * block)}
    memory["quarter"] = str((count // 4 * blocks + 2 * running) * block)
    conversations = [Conversation(number, config.vocab_size) for number in range(count)]
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        disk = {
            "kv_disk": directory,
            "kv_disk_size": str(2 * count * blocks * block),
        }
        for label, size, options, those in (
            ("memory", "all", disk, conversations),
            ("disk", "quarter", disk, conversations),
            ("recompute", "quarter", {}, conversations[:without]),
        ):
            _drop_cached_pages(Path(directory))
            report.print(f"{label}: {len(those)} conversations")
            with running_stack({"model": checkpoint, "kv_memory": memory[size], **options}) as stack:
                found[label] = asyncio.run(_run(stack.target, those, label, others, tokens))
    return found


def main(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint; bench.throughput.random_checkpoint writes one.")
    ],
    count: Annotated[int, typer.Option(min=4, help="Conversations.")] = 64,
    tokens: Annotated[int, typer.Option(min=32, help="Tokens of each before it comes back.")] = 2000,
    others: Annotated[int, typer.Option(min=1, help="Other streams.")] = 4,
    without: Annotated[int, typer.Option(min=1, help="That come back without a disk.")] = 16,
) -> None:
    """Prints TTFT of conversations that come back, and the speed of the other streams."""
    console = Console()
    found = measure(checkpoint, count, tokens, others, without, console)
    table = Table(
        "", "conversations", "TTFT P50, ms", "P99, ms", "cached", "others, tokens/s", caption=machine()
    )
    medians = {}
    for label, run in found.items():
        p50, p99 = np.percentile([turn.ttft for turn in run.turns], [50, 99]).tolist()
        medians[label] = p50
        cached = sum(turn.cached for turn in run.turns) / (tokens * len(run.turns))
        times = f"{p50 * 1e3:.0f}", f"{p99 * 1e3:.0f}"
        table.add_row(label, str(len(run.turns)), *times, f"{cached:.0%}", f"{run.others:.1f}")
    console.print(table)
    console.print(
        f"TTFT P50 with the disk over without: {medians['disk'] / medians['recompute']:.3f}; other streams "
        f"while conversations are fetched over while they are in memory: "
        f"{found['disk'].others / found['memory'].others:.3f}"
    )


if __name__ == "__main__":
    typer.run(main)
