"""Throughput through the whole stack, overlapped and synchronous, and of the bare model loop, in turn.

    python -m bench.throughput.whole_stack /tmp/qwen

All run the same batch to its end: as many requests as there are slots, all at once, prompts of random
ids, greedy. The bare loop runs without scheduler, Redis, gateway and client.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from albireo.planning.workloads.draw import make_workload
from albireo.runtime.kv_memory import KvMemory
from bench.machine import machine
from bench.serve.load import make_requests, run_workload
from bench.serve.report import summarize
from bench.stack import running_stack
from bench.throughput.static_batch import run
from worker_svc.collectives.tp_group import TPGroup, compute_threads
from worker_svc.runner.model_runner import ModelRunner

MODES = {"synchronous": True, "overlapped": False}


def bare_tokens_per_second(runner: ModelRunner, batch: int, prompt: int, outputs: int) -> float:
    seconds, _ = run(runner, batch, prompt, outputs)
    return batch * outputs / seconds


def stack_tokens_per_second(
    target: str, number: int, runner: ModelRunner, batch: int, prompt: int, outputs: int
) -> float:
    """Each ``number`` has prompts of its own: none is in the prefix cache, which the bare loop lacks.

    Raises RuntimeError if a request failed: its tokens would be missing from the figure.
    """
    workload = make_workload(
        f"fixed:{prompt}", f"fixed:{outputs}", concurrency=batch, num_requests=batch, seed=number
    )
    requests = make_requests(workload, runner.config.vocab_size)
    summary = summarize(asyncio.run(run_workload(target, workload, requests)))
    if summary["errors"]:
        raise RuntimeError(f"requests failed: {summary['errors']}")
    return float(summary["output_tokens_per_second"])


def main(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint; bench.throughput.random_checkpoint writes one.")
    ],
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 16,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 128,
    outputs: Annotated[int, typer.Option(min=2, help="New tokens of each request.")] = 129,
    rounds: Annotated[int, typer.Option(min=1, help="How often all are measured in turn.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prints tokens/s, round by round, and the medians of the ratios."""
    torch.set_num_threads(compute_threads(1))
    runner = ModelRunner(
        checkpoint,
        TPGroup(),
        device=torch.device("cpu"),
        dtype=torch.bfloat16,
        kv_memory=KvMemory(512 << 20),
        max_seqs=concurrency,
        max_model_len=prompt + outputs,
    )
    shape = (runner, concurrency, prompt, outputs)
    bare_tokens_per_second(*shape)
    options: dict[str, Any] = {"model": checkpoint}
    slots = {"ALBIREO_WORKER_MAX_SEQS": str(concurrency)}
    rounds_found = []
    with ExitStack() as running:
        targets = {
            mode: running.enter_context(running_stack(options | {"synchronous": synchronous}, slots)).target
            for mode, synchronous in MODES.items()
        }
        for target in targets.values():
            stack_tokens_per_second(target, 0, *shape)
        for number in range(1, rounds + 1):
            found = {"bare loop": bare_tokens_per_second(*shape)}
            for mode, target in targets.items():
                found[mode] = stack_tokens_per_second(target, number, *shape)
            rounds_found.append(found)
    ratios = {
        "overlapped / bare": _median_ratio(rounds_found, "overlapped", "bare loop"),
        "overlapped / synchronous": _median_ratio(rounds_found, "overlapped", "synchronous"),
    }
    setup = f"{machine()}; {concurrency} requests at once, {prompt} + {outputs} tokens, bf16, greedy"
    if as_json:
        print(json.dumps({"setup": setup, "rounds": rounds_found, "median_ratios": ratios}, indent=2))
        return
    table = Table("tokens/s", *rounds_found[0], caption=setup)
    for number, found in enumerate(rounds_found, 1):
        table.add_row(f"round {number}", *(f"{rate:.1f}" for rate in found.values()))
    Console().print(table, *(f"{name}: {ratio:.3f} (median)" for name, ratio in ratios.items()), sep="\n")


def _median_ratio(rounds: list[dict[str, float]], above: str, below: str) -> float:
    return float(np.median([found[above] / found[below] for found in rounds]))


if __name__ == "__main__":
    typer.run(main)
