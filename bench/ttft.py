"""Time to first token at half load, synchronous and overlapped in turn: planning ahead must not hurt it.

    python -m bench.ttft

On the simulated device, so that steps are as long as on a GPU. Half load: Poisson arrivals at half the rate
at which all slots together would end requests, were each step as long as T3 + T4.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from albireo.models import TINY
from albireo.planning.workloads.draw import make_workload
from bench.machine import machine
from bench.serve.load import make_requests, run_workload
from bench.serve.report import summarize
from bench.stack import running_stack
from worker_svc.cost.interface import CostModel
from worker_svc.cost.load import load_cost_model
from worker_svc.cost.work import StepWork
from worker_svc.model.config import ModelConfig

SLOTS, PROMPT, OUTPUTS = 64, 64, 64


def step_seconds(cost: CostModel) -> float:
    """T3 + T4 of a step at half load."""
    rows = SLOTS // 2
    work = StepWork(decodes=rows, context=rows * (PROMPT + OUTPUTS // 2), greedy=rows)
    return cost.forward_seconds(work) + cost.sampling_seconds(work, parallel=False)


def measure(cost_model: str, tp: int, rate: float, requests: int, *, synchronous: bool) -> dict[str, Any]:
    """Raises RuntimeError if a request failed."""
    workload = make_workload(f"fixed:{PROMPT}", f"fixed:{OUTPUTS}", rate=rate, num_requests=requests)
    options = {"device": "sim", "cost_model": cost_model, "tp": tp, "synchronous": synchronous}
    with running_stack(options, {"ALBIREO_WORKER_MAX_SEQS": str(SLOTS)}) as stack:
        summary = summarize(asyncio.run(run_workload(stack.target, workload, make_requests(workload, 300))))
    if summary["errors"]:
        raise RuntimeError(f"requests failed: {summary['errors']}")
    return summary


def main(
    cost_model: Annotated[str, typer.Option(help="A preset, or a TOML file.")] = "paper-32b",
    tp: Annotated[int, typer.Option(min=1, help="Ranks.")] = 4,
    requests: Annotated[int, typer.Option(min=10, help="Requests of each run.")] = 300,
    rounds: Annotated[int, typer.Option(min=1, help="How often both modes run in turn.")] = 2,
) -> None:
    """Prints TTFT of both modes, and their difference in steps."""
    step = step_seconds(load_cost_model(cost_model, ModelConfig.from_dir(TINY), tp))
    rate = 0.5 * SLOTS / (OUTPUTS * step)
    table = Table("simulated, ms", "TTFT median", "p99", "TPOT median", caption=machine())
    found: dict[str, list[float]] = {"synchronous": [], "overlapped": []}
    for _ in range(rounds):
        for mode, medians in found.items():
            summary = measure(cost_model, tp, rate, requests, synchronous=mode == "synchronous")
            ttft, tpot = summary["ttft"], summary["tpot"]
            medians.append(ttft["p50"])
            table.add_row(mode, *(f"{s * 1e3:.1f}" for s in (ttft["p50"], ttft["p99"], tpot["p50"])))
    worse = float(np.median(found["overlapped"]) - np.median(found["synchronous"]))
    Console().print(table, f"{rate:.1f} requests/s; a step of T3 + T4 takes {step * 1e3:.1f} ms")
    Console().print(
        f"overlapped - synchronous: {worse * 1e3:+.1f} ms = {worse / step:+.2f} steps (at most 1)"
    )


if __name__ == "__main__":
    typer.run(main)
