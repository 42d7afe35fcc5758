"""A context of four times the device's KV memory: its tokens, its pace, and what other streams lose by it.

    python -m bench.kv_tiers.long_contexts /tmp/qwen

Two stacks run at once and are asked in turn: one has memory for the whole context, the other a quarter and a
disk, from which each token's layers read the rest.

- *tokens*: greedy, of both. With float32 they must be equal (the exit status says so); with bfloat16
  attention over pieces rounds otherwise than over the whole, and near ties can end otherwise.
- *pace* of the request alone. The bound of a token is the longer of reading what the device has no memory
  for, as fast as the tier reads the same by itself, and the time of a token with enough memory. The files
  were just written, so they are in the page cache; the table says how fast the disk itself is, too.
  In the first round the prompt is computed, in the others it is in the prefix cache, or on the disk.
- *other streams* decode alone, during the prompt of such a request, and during its decoding, in turn. What a
  prompt computes before it fills its part of the device are chunks as of any prompt; they come before.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import grpc
import torch
import typer
from rich.console import Console
from rich.table import Table

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from albireo.v1 import control_pb2_grpc, inference_pb2_grpc
from bench.kv_tiers.long_request import Alone, LongRequest, ask
from bench.kv_tiers.long_windows import PHASES, Windows
from bench.kv_tiers.tier_reading import ReadingSpeed, reading_speed
from bench.machine import machine
from bench.stack import running_stack
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.model.config import ModelConfig

TIMES = 4
"""The context, in what the device has memory for."""
FRAMES = 4
"""Of the disk, in contexts: those that the windows begin do not take the frames of the first."""
BAR = 1.1
"""TPOT P50 of other streams during the long request over alone: at most this."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """In tokens, but ``rounds`` and ``seconds``, which are of each window."""

    device: int
    outputs: int
    others: int
    rounds: int
    seconds: float

    @property
    def context(self) -> int:
        return TIMES * self.device


@dataclass(slots=True)
class Found:
    """What the rounds have brought."""

    memory: list[Alone]
    disk: list[Alone]
    speeds: list[ReadingSpeed]
    windows: Windows


async def _run(targets: tuple[str, str], layout: KvLayout, vocab_size: int, sizes: Sizes) -> Found:
    """``targets``: of the stack with enough memory, and of the one with a disk."""
    first = LongRequest(0, vocab_size, sizes.context - sizes.outputs, sizes.outputs)
    async with grpc.aio.insecure_channel(targets[0]) as enough, grpc.aio.insecure_channel(targets[1]) as few:
        stub, control = inference_pb2_grpc.InferenceStub(few), control_pb2_grpc.ControlStub(few)
        windows = Windows(stub, control, vocab_size, others=sizes.others, device=sizes.device)
        found = Found([], [], [], windows)
        for number in range(sizes.rounds):
            found.memory.append(await ask(inference_pb2_grpc.InferenceStub(enough), first, f"memory{number}"))
            blocks = blocks_for(sizes.context - sizes.device)
            found.speeds.append(await asyncio.to_thread(reading_speed, layout, blocks))
            found.disk.append(await ask(stub, first, f"disk{number}"))
        await windows.measure(first, rounds=sizes.rounds, seconds=sizes.seconds)
        return found


def measure(checkpoint: Path, dtype: torch.dtype, sizes: Sizes) -> Found:
    """Raises RuntimeError where a stream fails, or nothing is streamed."""
    config = ModelConfig.from_dir(checkpoint)
    layout = KvLayout.of(config, dtype, "measured", tp=1, rank=0)
    device, context = (blocks_for(n) * layout.block_bytes for n in (sizes.device, sizes.context))
    common = {"model": checkpoint, "dtype": str(dtype).removeprefix("torch.")}
    environment = {"ALBIREO_WORKER_MAX_MODEL_LEN": str(sizes.context)}
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stacks:
        disk = {"kv_memory": str(device), "kv_disk": directory, "kv_disk_size": str(FRAMES * context)}
        targets = tuple(
            stacks.enter_context(running_stack({**common, **options}, environment)).target
            for options in ({"kv_memory": str(2 * context)}, disk)
        )
        return asyncio.run(_run((targets[0], targets[1]), layout, config.vocab_size, sizes))


def pace_table(found: Found, kv_token_bytes: int, sizes: Sizes) -> Table:
    """A row a round; milliseconds for each token."""
    columns = "with enough memory", "past the device, MB", "tier reads, GB/s", "disk itself", "bound"
    table = Table("round", *columns, "with a disk", "share of the bound", title="alone, ms a token")
    for number, (memory, disk, speed) in enumerate(zip(found.memory, found.disk, found.speeds, strict=True)):
        past = (sizes.context - sizes.device) * kv_token_bytes
        bound = max(past / speed.cache, memory.token_seconds)
        speeds = f"{speed.cache / 1e9:.2f}", f"{speed.disk / 1e9:.2f}"
        figures = f"{memory.token_seconds * 1e3:.0f}", f"{past / 1e6:.0f}", *speeds, f"{bound * 1e3:.0f}"
        share = bound / disk.token_seconds
        table.add_row(str(number), *figures, f"{disk.token_seconds * 1e3:.0f}", f"{share:.2f}")
    return table


def others_table(windows: Windows) -> Table:
    """A row a phase, over all rounds."""
    table = Table(
        "other streams", "TPOT P50, ms", "gap P50", "P99", "longest", "streamed, MB", "TPOT P50 over alone"
    )
    alone = windows.summary(PHASES[0]).tpot
    for phase in PHASES:
        summary = windows.summary(phase)
        times = (f"{seconds * 1e3:.0f}" for seconds in summary)
        streamed = f"{windows.streamed[phase] / 1e6:.0f}"
        table.add_row(phase, *times, streamed, f"{summary.tpot / alone:.3f} (at most {BAR})")
    return table


def main(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint; bench.throughput.random_checkpoint writes one.")
    ],
    device_tokens: Annotated[int, typer.Option(min=512, help="That the device has memory for.")] = 1024,
    outputs: Annotated[int, typer.Option(min=8, help="Of the request alone.")] = 32,
    others: Annotated[int, typer.Option(min=1, help="Other streams.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Of everything, in turn.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Of one window of the other streams.")] = 10.0,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Of weights and KV.")] = "float32",
) -> None:
    """Prints whether tokens are equal, the pace against its bound, and TPOT of the other streams."""
    sizes = Sizes(device_tokens - device_tokens % BLOCK_SIZE, outputs, others, rounds, seconds)
    kind, config = getattr(torch, dtype), ModelConfig.from_dir(checkpoint)
    found = measure(checkpoint, kind, sizes)
    console = Console()
    layout = KvLayout.of(config, kind, "measured", tp=1, rank=0)
    console.print(pace_table(found, layout.block_bytes // BLOCK_SIZE, sizes))
    prompt = f"{found.disk[0].ttft:.1f} s, with enough memory {found.memory[0].ttft:.1f} s"
    console.print(f"TTFT of the prompt of {sizes.context - sizes.outputs} tokens, alone: {prompt}")
    windows = found.windows
    console.print(others_table(windows), machine())
    long = f"{windows.long_tokens} tokens in {windows.long_seconds:.0f} s"
    console.print(f"of the long request meanwhile: {long}")
    pairs = list(zip(found.memory, found.disk, strict=True))
    differ = sum(memory.ids != disk.ids for memory, disk in pairs)
    console.print(
        f"{dtype}, a context of {sizes.context} tokens, device memory for {sizes.device}: "
        f"{differ} of {rounds} answers differ from those with enough memory; "
        f"one has {len(set(pairs[0][0].ids))} different tokens"
    )
    sys.exit(dtype == "float32" and differ > 0)


if __name__ == "__main__":
    typer.run(main)
