"""Throughput through the whole stack over that of the bare model loop, in turn in one run.

    python -m bench.whole_stack /tmp/qwen

Both run the same batch to its end: as many requests as there are slots, all at once, prompts of random
ids, greedy. The bare loop has no scheduler, no Redis, no gateway and no client beside it.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from albireo.bench_serve.load import make_requests, run_load
from albireo.bench_serve.report import machine, summarize
from albireo.stack import Stack, StackSettings
from bench.static_batch import run
from worker_svc.model.parallel import TPGroup, compute_threads
from worker_svc.runner import ModelRunner


def bare_tokens_per_second(runner: ModelRunner, batch: int, prompt: int, outputs: int) -> float:
    seconds, _ = run(runner, batch, prompt, outputs)
    return batch * outputs / seconds


def stack_tokens_per_second(target: str, runner: ModelRunner, batch: int, prompt: int, outputs: int) -> float:
    """Raises RuntimeError if a request failed: its tokens would be missing from the figure."""
    requests = make_requests(
        batch,
        lambda draw: prompt,
        lambda draw: outputs,
        vocab_size=runner.config.vocab_size,
        max_model_len=runner.shape.max_model_len,
        seed=0,
        temperature=0.0,
    )
    summary = summarize(asyncio.run(run_load(target, requests, concurrency=batch)))
    if summary["errors"]:
        raise RuntimeError(f"requests failed: {summary['errors']}")
    return float(summary["output_tokens_per_second"])


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint; see bench/random_checkpoint.py.")],
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 16,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 128,
    outputs: Annotated[int, typer.Option(min=2, help="New tokens of each request.")] = 129,
    rounds: Annotated[int, typer.Option(min=1, help="How often both are measured in turn.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prints tokens/s of both, round by round, and the median of their ratios."""
    torch.set_num_threads(compute_threads(1))
    runner = ModelRunner(
        checkpoint,
        TPGroup(),
        device=torch.device("cpu"),
        dtype=torch.bfloat16,
        kv_memory=512 << 20,
        max_seqs=concurrency,
        max_model_len=prompt + outputs,
    )
    shape = (runner, concurrency, prompt, outputs)
    bare_tokens_per_second(*shape)
    pairs = []
    with tempfile.TemporaryDirectory() as data:
        settings = StackSettings.model_validate({"model": checkpoint, "port": 0, "data_dir": data})
        with Stack(settings) as stack:
            stack.wait_ready(threading.Event())
            stack_tokens_per_second(stack.target, *shape)
            for _ in range(rounds):
                bare = bare_tokens_per_second(*shape)
                pairs.append((bare, stack_tokens_per_second(stack.target, *shape)))
    ratio = float(np.median([whole / bare for bare, whole in pairs]))
    setup = f"{machine()}; {concurrency} requests at once, {prompt} + {outputs} tokens, bf16, greedy"
    if as_json:
        print(json.dumps({"setup": setup, "rounds": pairs, "median_ratio": ratio}, indent=2))
        return
    table = Table("tokens/s", "bare loop", "whole stack", "ratio", caption=setup)
    for number, (bare, whole) in enumerate(pairs, 1):
        table.add_row(f"round {number}", f"{bare:.1f}", f"{whole:.1f}", f"{whole / bare:.3f}")
    table.add_row("median", "", "", f"{ratio:.3f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
