"""Whether KV that was evicted, spilled, fetched and kept over a restart brings the same tokens.

    python -m bench.kv_tiers.exact

Conversations on the bundled model, fp32, half of them greedy, half sampled with a seed: once with memory for
all of them, once with device blocks for a few and a disk for some, whose stack is stopped and started again
on the way. The exit status is 1 where a stream has other tokens.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from typing import Annotated, Any

import grpc
import torch
import typer
from rich.console import Console
from rich.table import Table

from albireo.models import TINY
from albireo.v1 import inference_pb2_grpc
from bench.kv_tiers.conversations import Conversation, round_of_turns
from bench.machine import machine
from bench.stack import running_stack
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes

FIRST_PROMPT, PROMPT, OUTPUTS = 96, 8, 16
AT_ONCE = 8


async def _rounds(target: str, conversations: list[Conversation], label: str, rounds: int) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        for _ in range(rounds):
            first = not conversations[0].turns
            prompt = FIRST_PROMPT if first else PROMPT
            await round_of_turns(stub, conversations, label, at_once=AT_ONCE, prompt=prompt, outputs=OUTPUTS)


def run(count: int, rounds: int, tp: int, environment: dict[str, str], lives: int) -> list[Conversation]:
    """``lives``: of the stack, among which the rounds are divided."""
    vocabulary = ModelConfig.from_dir(TINY).vocab_size
    conversations = [Conversation(number, vocabulary) for number in range(count)]
    options: dict[str, Any] = {"model": TINY, "dtype": "float32", "tp": tp}
    for life in range(lives):
        with running_stack(options, environment) as stack:
            asyncio.run(_rounds(stack.target, conversations, f"life{life}", rounds // lives))
    return conversations


def main(
    count: Annotated[int, typer.Option(min=2, help="Conversations.")] = 50,
    rounds: Annotated[int, typer.Option(min=2, help="Turns of each; even.")] = 10,
    tp: Annotated[list[int], typer.Option(help="Ranks, one run of each.")] = [1, 2],  # noqa: B006
    blocks: Annotated[int, typer.Option(min=64, help="KV blocks of the group with a disk.")] = 160,
    frames: Annotated[int, typer.Option(min=1, help="Blocks that its disk holds.")] = 600,
) -> None:
    """Prints how many streams were fetched, and how many differ."""
    table = Table("TP", "streams", "cached tokens, enough memory", "with tiers", "differ", caption=machine())
    wrong = 0
    for degree in tp:
        reference = run(count, rounds, degree, {}, 1)
        block = block_bytes(ModelConfig.from_dir(TINY), degree, torch.float32)
        with tempfile.TemporaryDirectory() as directory:
            environment = {
                "ALBIREO_WORKER_KV_MEMORY": str(blocks * block),
                "ALBIREO_WORKER_KV_DISK": directory,
                "ALBIREO_WORKER_KV_DISK_SIZE": str(frames * block),
            }
            tiered = run(count, rounds, degree, environment, 2)
        pairs = [
            (whole, tier)
            for one, other in zip(reference, tiered, strict=True)
            for whole, tier in zip(one.turns, other.turns, strict=True)
        ]
        differ = sum(whole.ids != tier.ids for whole, tier in pairs)
        wrong += differ
        cached = [str(sum(turn.cached for turn in turns)) for turns in zip(*pairs, strict=True)]
        table.add_row(str(degree), str(len(pairs)), *cached, str(differ))
    Console().print(table)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
