"""What a simulated step costs in CPU time, and how many times faster than real time a simulation is.

    python -m bench.simulation_cost [--json] [--rows N] [--steps N] [--runs N]

A closed loop keeps ``--rows`` requests running on one group whose steps take 20 ms. Each request has a
prompt of 128 tokens; the fewer tokens it brings, the more requests come and go in each step. The time is the
CPU time of the process, the least of several runs, since other load on the machine slows all of them. A last
run, under the profiler, shows in which folders the time is spent; it makes calls dearer than they are.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from albireo.planning.result import SimulationResult
from albireo.planning.simulation.run import simulate
from albireo.planning.workload import Workload, WorkloadRequest
from bench.machine import machine
from worker_svc.cost.device import STEADY
from worker_svc.cost.interface import HostCost
from worker_svc.cost.work import StepWork

PROMPT_TOKENS = 128
OUTPUT_TOKENS = (128, 256, 1024)
STEP_SECONDS = 0.020
SAMPLING_SECONDS = 0.002
ROOT = Path(__file__).parents[1]


class EvenSteps:
    """A cost model in which every step takes as long as every other; see CostModel."""

    name = "even steps"
    tp = 1
    variation = STEADY

    def forward_seconds(self, work: StepWork) -> float:
        return STEP_SECONDS - SAMPLING_SECONDS

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        return SAMPLING_SECONDS

    def host(self, work: StepWork) -> HostCost:
        return HostCost(t1=300e-6, t2=400e-6, t5=200e-6)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one workload."""

    rows: int
    outputs: int  # tokens of each request
    steps: int
    ends: float  # mean requests that end in a step
    microseconds: float  # CPU time of a step
    faster: float  # virtual seconds in a second of CPU time


def workload(rows: int, outputs: int, steps: int) -> Workload:
    """Runs about ``steps`` steps. Half of the first requests' tokens are spread out, so that not all end in
    the same steps."""
    waves = max(2, round(steps / outputs))
    spread = [outputs // 2 + outputs * row // rows // 2 for row in range(rows)]
    lengths = spread + [outputs] * (rows * (waves - 1))
    requests = tuple(WorkloadRequest(0.0, PROMPT_TOKENS, length) for length in lengths)
    return Workload(f"{rows} at a time, {outputs} tokens", requests, concurrency=rows)


def run(rows: int, outputs: int, steps: int) -> SimulationResult:
    """Simulates one workload, with KV blocks for all."""
    longest = PROMPT_TOKENS + outputs
    blocks = rows * (longest // 16 + 2)
    return simulate(
        workload(rows, outputs, steps), EvenSteps(), num_blocks=blocks, max_seqs=rows, max_model_len=longest
    )


def measure(rows: int, outputs: int, steps: int, runs: int) -> Cost:
    """The least CPU time of ``runs`` runs."""
    results = [run(rows, outputs, steps) for _ in range(runs)]
    best = min(results, key=lambda result: result.cpu_seconds)
    count = best.totals.steps
    return Cost(
        rows,
        outputs,
        count,
        round(len(best.requests) / count, 2),
        round(best.cpu_seconds / count * 1e6, 1),
        round(best.seconds / best.cpu_seconds, 1),
    )


def shares(rows: int, outputs: int, steps: int) -> dict[str, float]:
    """Percent of a profiled run's time by the folder of the code; what is not ours is ``other``."""
    profile = cProfile.Profile()
    profile.runcall(run, rows, outputs, steps)
    times: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if file == "~":  # a function in C: its time belongs to its callers
            for (caller, _, _), (_, _, part, _) in callers.items():
                times[_folder(caller)] += part
        else:
            times[_folder(file)] += own
    total = times.total()
    return {name: round(100 * time / total, 1) for name, time in times.most_common() if time > total / 100}


def _folder(file: str) -> str:
    path = Path(file)
    return str(path.parent.relative_to(ROOT)) if path.is_relative_to(ROOT) else "other"


def table(costs: list[Cost], parts: dict[str, float]) -> Table:
    """For the terminal."""
    view = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=f"CPU time of a simulated step of {STEP_SECONDS * 1000:.0f} ms",
        caption="\n".join([*(f"{share:5.1f} % {name}" for name, share in parts.items()), machine()]),
    )
    for name in ("rows", "tokens", "steps", "ends a step", "us a step", "x real time"):
        view.add_column(name, justify="right")
    for cost in costs:
        view.add_row(*(f"{value:g}" for value in asdict(cost).values()))
    return view


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What a simulated step costs.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rows", type=int, default=256, help="requests that run at a time")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each run, about")
    parser.add_argument("--runs", type=int, default=3, help="runs of each workload")
    options = parser.parse_args()
    costs = [measure(options.rows, outputs, options.steps, options.runs) for outputs in OUTPUT_TOKENS]
    parts = shares(options.rows, OUTPUT_TOKENS[1], options.steps)
    if options.json:
        json.dump({"machine": machine(), "costs": [asdict(c) for c in costs], "shares": parts}, sys.stdout)
        sys.stdout.write("\n")
    else:
        Console().print(table(costs, parts))


if __name__ == "__main__":
    main()
