"""Decode steps of the model alone, against the machine's limits measured in the same run.

    python -m bench.throughput.bare_model /tmp/qwen

What the limit of a step is: bench/throughput/step_limit.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from albireo.runtime.kv_memory import KvMemory
from bench.machine import machine
from bench.throughput.static_batch import run
from bench.throughput.step_limit import DeviceLimits
from worker_svc.collectives.tp_group import TPGroup, compute_threads
from worker_svc.cost.shape import ModelShape
from worker_svc.cost.work import StepWork
from worker_svc.runner.model_runner import ModelRunner

PROMPT, OUTPUTS = 128, 129  # contexts of 128 to 256 tokens


def measure(runner: ModelRunner, batch: int, limits: DeviceLimits) -> dict[str, Any]:
    """Decode steps of ``batch`` rows, and their limit."""
    run(runner, batch, PROMPT, 8)
    _, steps = run(runner, batch, PROMPT, OUTPUTS)
    context = round(batch * (PROMPT + OUTPUTS / 2))
    work = StepWork(decodes=batch, context=context, greedy=batch)
    limit, _ = limits.of_step(ModelShape(runner.config, tp=1), work)
    median = float(np.median(steps))
    return {
        "batch": batch,
        "step_ms": median * 1000,
        "p99_ms": float(np.percentile(steps, 99)) * 1000,
        "tokens_per_second": batch / median,
        "limit_ms": limit * 1000,
        "share_of_limit": limit / median,
    }


def main(
    checkpoint: Annotated[
        Path, typer.Argument(help="A bf16 checkpoint; bench.throughput.random_checkpoint writes one.")
    ],
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes; default 1, 16 and 64.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prints step time, tokens/s and the share of the machine's limit."""
    torch.set_num_threads(compute_threads(1))
    device = torch.device("cpu")
    limits = DeviceLimits.measured(device, torch.bfloat16)
    runner = ModelRunner(
        checkpoint,
        TPGroup(),
        device=device,
        dtype=torch.bfloat16,
        kv_memory=KvMemory(1 << 30),
        max_seqs=64,
        max_model_len=1024,
    )
    rows = [measure(runner, size, limits) for size in batch or [1, 16, 64]]
    setup = {
        "machine": machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "read_gb_per_second": limits.read / 1e9,
        "copy_gb_per_second": limits.copy / 1e9,
        "bf16_tflop_per_second": limits.operations / 1e12,
    }
    if as_json:
        print(json.dumps({**setup, "steps": rows}, indent=2))
        return
    table = Table(*rows[0], title=f"{checkpoint.name}, bf16, contexts of {PROMPT} to {PROMPT + OUTPUTS - 1}")
    for row in rows:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(
        table, ", ".join(f"{k}: {v:.1f}" if isinstance(v, float) else str(v) for k, v in setup.items())
    )


if __name__ == "__main__":
    typer.run(main)
