"""Conversations that come back after others have taken their blocks: TTFT with a disk against without.

    python -m bench.kv_tiers.returns /tmp/qwen

Three runs with the same conversations, which come back one by one, while other streams decode:

- *memory*: device blocks for all. The conversations begin here, and are written to the disk on the way.
- *disk*: a stack that is started anew on the same disk, with device blocks for a quarter. Each conversation
  comes back twice, from the disk and then from device blocks.
- *recompute*: device blocks for a quarter, no disk.

The first says how fast the other streams are where nothing is fetched, and so do the second returns of the
second run: those are in turn with fetches, so that other work on the machine slows down both.
"""

from __future__ import annotations

import asyncio
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
from albireo.v1 import inference_pb2_grpc
from bench.kv_tiers.conversations import Conversation, round_of_turns
from bench.kv_tiers.others import other_streams, tokens_between
from bench.kv_tiers.tier_reading import drop_cached_pages
from bench.machine import machine
from bench.stack import running_stack
from bench.streams import Received
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes

PROMPT, OUTPUTS = 16, 16
"""Of a turn that comes back."""
OTHER_PROMPT, OTHER_OUTPUTS = 64, 1500
"""Of a request of another stream."""
PAUSE_SECONDS = 0.5
"""From the end of one turn to the next conversation that comes back."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one run has brought."""

    turns: list[Received]
    others: list[float]  # tokens/s of the other streams while conversations came back: first, second time


async def _run(
    target: str, conversations: list[Conversation], label: str, others: int, tokens: int, times: int
) -> Found:
    """Conversations that have not begun begin with ``tokens`` before the others do. Each comes back some
    ``times`` before the next one does."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        new = [conversation for conversation in conversations if not conversation.turns]
        await round_of_turns(stub, new, label, at_once=4, prompt=tokens - OUTPUTS, outputs=OUTPUTS)
        vocab_size = conversations[0].vocab_size
        streams = other_streams(stub, others, vocab_size, prompt=OTHER_PROMPT, outputs=OTHER_OUTPUTS)
        async with streams as received:
            spans: list[list[tuple[float, float]]] = [[] for _ in range(times)]
            for conversation in conversations:
                for returns in spans:
                    begin = time.monotonic()
                    await conversation.turn(stub, label, prompt=PROMPT, outputs=OUTPUTS)
                    await asyncio.sleep(PAUSE_SECONDS)
                    returns.append((begin, time.monotonic()))
        turns = [conversation.turns[-times] for conversation in conversations]
        return Found(turns, [_speed(received, returns) for returns in spans])


def _speed(received: Sequence[Received], spans: Sequence[tuple[float, float]]) -> float:
    tokens = sum(tokens_between(received, begin, end) for begin, end in spans)
    return tokens / sum(end - begin for begin, end in spans)


def measure(
    checkpoint: Path, count: int, tokens: int, others: int, without: int, report: Console
) -> dict[str, Found]:
    """``without``: conversations that come back in the run without a disk."""
    config = ModelConfig.from_dir(checkpoint)
    block = block_bytes(config, 1, torch.bfloat16)
    # Of each conversation with its turns, and of the other streams.
    blocks = -(-(tokens + 4 * (PROMPT + OUTPUTS)) // BLOCK_SIZE)
    running = others * -(-(OTHER_PROMPT + OTHER_OUTPUTS) // BLOCK_SIZE)
    memory = {"all": str((count * blocks + 2 * running) * block)}
    memory["quarter"] = str((count // 4 * blocks + 2 * running) * block)
    conversations = [Conversation(number, config.vocab_size) for number in range(count)]
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        disk = {
            "kv_disk": directory,
            "kv_disk_size": str(2 * count * blocks * block),
        }
        for label, size, options, those, times in (
            ("memory", "all", disk, conversations, 1),
            ("disk", "quarter", disk, conversations, 2),
            ("recompute", "quarter", {}, conversations[:without], 1),
        ):
            drop_cached_pages(Path(directory))
            report.print(f"{label}: {len(those)} conversations")
            with running_stack({"model": checkpoint, "kv_memory": memory[size], **options}) as stack:
                found[label] = asyncio.run(_run(stack.target, those, label, others, tokens, times))
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
        table.add_row(label, str(len(run.turns)), *times, f"{cached:.0%}", f"{run.others[0]:.1f}")
    console.print(table)
    console.print(
        f"TTFT P50 with the disk over without: {medians['disk'] / medians['recompute']:.3f}; other streams "
        f"while conversations are fetched over while they are in memory: in the run before "
        f"{found['disk'].others[0] / found['memory'].others[0]:.3f}, in turn in the same run "
        f"{found['disk'].others[0] / found['disk'].others[1]:.3f}"
    )


if __name__ == "__main__":
    typer.run(main)
