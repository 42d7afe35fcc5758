"""Whether KV that was evicted, spilled, fetched, streamed and kept over a restart brings the same tokens.

    python -m bench.kv_tiers.exact

Conversations on the bundled model, fp32, half of them greedy, half sampled with a seed: once with memory for
all of them, once with device blocks for a few and a disk for some, whose stack is stopped and started again
twice on the way; the second time bits of its files have been flipped. Some conversations outgrow the device's
blocks in their first turns, so that they are streamed in all later ones. The exit status is 1 where a stream
has other tokens, or where none was streamed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import grpc
import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from albireo.contract.plan import BLOCK_SIZE
from albireo.models import TINY
from albireo.v1 import control_pb2 as control
from albireo.v1 import control_pb2_grpc, inference_pb2_grpc
from bench.kv_tiers.conversations import Conversation, round_of_turns
from bench.machine import machine
from bench.stack import running_stack
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes

FIRST_PROMPT, PROMPT, OUTPUTS = 96, 8, 16
AT_ONCE = 8
ROUNDS = 5, 3, 2
"""Turns of each conversation in each life of the stack."""
DAMAGED = 5
LONG = 5
"""One in so many conversations outgrows the device's blocks,"""
LONG_TURNS = 3
"""after so many turns."""


class Tally:
    """What the scheduler has counted for the tier of the group, over all lives of the stack."""

    def __init__(self) -> None:
        self.hit_tokens = self.failed = self.lost = 0

    async def add(self, channel: grpc.aio.Channel) -> None:
        """The figures of a stack that is about to stop, once they are published."""
        await asyncio.sleep(2.0)
        load = await control_pb2_grpc.ControlStub(channel).GetLoad(control.GetLoadRequest(), timeout=10)
        for tier in (tier for group in load.groups for tier in group.tiers):
            self.hit_tokens += tier.prefix_hit_tokens
            self.failed += tier.fetches_failed
            self.lost += tier.frames_lost


async def _rounds(
    target: str, conversations: list[Conversation], label: str, rounds: int, tally: Tally
) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        for _ in range(rounds):
            await round_of_turns(stub, conversations, label, at_once=AT_ONCE, prompt=PROMPT, outputs=OUTPUTS)
        await tally.add(channel)


def damage(directory: Path, frame_bytes: int) -> None:
    """Flips one bit of every ``DAMAGED``-th frame, somewhere in it."""
    draw = np.random.default_rng(0)
    for path in sorted(directory.glob("*.data")):
        with path.open("r+b") as file:
            for frame in range(0, path.stat().st_size // frame_bytes, DAMAGED):
                file.seek(frame * frame_bytes + int(draw.integers(frame_bytes)))
                [byte] = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 1 << int(draw.integers(8))]))


def make_conversations(count: int, blocks: int) -> list[Conversation]:
    """``blocks``: of the device that some of them outgrow."""
    long = blocks * BLOCK_SIZE - LONG_TURNS * (PROMPT + OUTPUTS)
    vocab_size = ModelConfig.from_dir(TINY).vocab_size
    return [
        Conversation(number, vocab_size, long if number % LONG == LONG - 1 else FIRST_PROMPT)
        for number in range(count)
    ]


def run(
    conversations: list[Conversation],
    rounds: Sequence[int],
    options: dict[str, Any],
    tally: Tally,
    between: Callable[[int], None],
) -> list[Conversation]:
    """``rounds``: of each life of the stack; ``between`` is called with their number before each."""
    for life, turns in enumerate(rounds):
        between(life)
        with running_stack({"model": TINY, "dtype": "float32", **options}) as stack:
            asyncio.run(_rounds(stack.target, conversations, f"life{life}", turns, tally))
    return conversations


def compare(count: int, tp: int, blocks: int, frames: int) -> tuple[list[str], int]:
    """A row of the table, and how much is wrong."""
    all_turns = [sum(ROUNDS)]
    reference = run(make_conversations(count, blocks), all_turns, {"tp": tp}, Tally(), lambda life: None)
    block, tally = block_bytes(ModelConfig.from_dir(TINY), tp, torch.float32), Tally()
    with tempfile.TemporaryDirectory() as directory:
        options = {"tp": tp, "kv_memory": str(blocks * block)}
        options |= {"kv_disk": directory, "kv_disk_size": str(frames * block)}

        def between(life: int) -> None:
            if life == len(ROUNDS) - 1:
                damage(Path(directory), block)

        tiered = run(make_conversations(count, blocks), ROUNDS, options, tally, between)
    pairs = [
        (whole, tier)
        for one, other in zip(reference, tiered, strict=True)
        for whole, tier in zip(one.turns, other.turns, strict=True)
    ]
    differ = sum(whole.ids != tier.ids for whole, tier in pairs)
    cached = (sum(turn.cached for turn in turns) for turns in zip(*pairs, strict=True))
    streamed = sum(tier.streamed > 0 for _, tier in pairs)
    figures = (tp, len(pairs), streamed, *cached, tally.hit_tokens, tally.failed, tally.lost, differ)
    return list(map(str, figures)), differ + (not streamed)


def main(
    count: Annotated[int, typer.Option(min=LONG, help="Conversations.")] = 50,
    tp: Annotated[list[int], typer.Option(help="Ranks, one run of each.")] = [1, 2],  # noqa: B006
    blocks: Annotated[int, typer.Option(min=32, max=48, help="KV blocks of the group with a disk.")] = 48,
    frames: Annotated[int, typer.Option(min=1, help="Blocks that its disk holds.")] = 1400,
) -> None:
    """Prints how many tokens came from where, and how many streams differ."""
    columns = (
        "TP",
        "streams",
        "streamed",
        "cached tokens, enough memory",
        "with a disk",
        "tokens to be fetched",
    )
    table = Table(*columns, "fetches that failed", "frames lost", "streams that differ", caption=machine())
    wrong = 0
    for degree in tp:
        row, differ = compare(count, degree, blocks, frames)
        table.add_row(*row)
        wrong += differ
    Console().print(table)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
