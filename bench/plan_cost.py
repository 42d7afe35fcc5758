"""What planning and settling a step cost the scheduler's core, by the number of running requests.

    python -m bench.plan_cost [--json] [--steps N] [--running N ...]

Steady load: every request that ends is replaced at once, so about ``running / 128`` requests come and go
in each step; one in eight ends by a stop that the core cannot predict. The worker is simulated, and its
time is not counted. The time is the thread's CPU time, so that other load on the machine does not show as
a tail; Python's garbage collector is on, and its time counts.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from albireo.contract.plan import Finish, GroupShape, Plan, SamplingParams, StepResult, Submission, blocks_for
from bench.machine import machine
from scheduler_svc.core import Limits, SchedulerCore

PROMPT_TOKENS = (64, 448)
OUTPUT_TOKENS = (64, 192)
STOP_SHARE = 1 / 8
GPU_STEP_US = 21_000.0
"""The forward of the paper's main example (32B, t = 4), to compare with."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds a step at one load."""

    running: int
    max_in_flight: int
    steps: int
    decodes: float  # mean rows of a step
    arrivals: float  # mean admissions of a step
    plan_median: float
    plan_p99: float
    settle_median: float
    settle_p99: float
    both_median: float
    both_p99: float


class StandIn:
    """Answers plans with results: a random token a row, and a finish at the request's length."""

    def __init__(self, rng: random.Random, stop_share: float = STOP_SHARE) -> None:
        self._rng = rng
        self._stop_share = stop_share
        self._left: dict[int, list[int]] = {}  # slot -> [incarnation, tokens to come, chunk tokens to come]
        self._decoding: dict[int, None] = {}
        self._joining: list[int] = []

    def run(self, plan: Plan) -> StepResult:
        """The result of the next step."""
        self._decoding.update(dict.fromkeys(self._joining))
        for slot in (*plan.released, *plan.paused):
            self._decoding.pop(slot, None)
        self._decoding.update(dict.fromkeys(plan.resumed))
        for admission in plan.admissions:
            outputs = admission.sampling.max_tokens - admission.num_outputs
            if self._rng.random() < self._stop_share:
                outputs = self._rng.randint(1, outputs)
            fresh = len(admission.tokens) - admission.num_cached
            self._left[admission.slot] = [admission.incarnation, outputs, fresh]
        sampled = list(self._decoding)
        self._joining = []
        for chunk in plan.chunks:
            state = self._left[chunk.slot]
            state[2] -= chunk.count
            if not state[2]:
                self._joining.append(chunk.slot)
        rows = [row for slot in (*sampled, *self._joining) if (row := self._row(slot))]
        slots, incarnations, ids, finishes = zip(*rows, strict=True) if rows else ((), (), (), ())
        return StepResult(plan.epoch, plan.step, slots, incarnations, ids, finishes)

    def _row(self, slot: int) -> tuple[int, int, int, int] | None:
        state = self._left[slot]
        state[1] -= 1
        if state[1] < 0:
            return None
        finish = Finish.NONE if state[1] else Finish.LENGTH
        return slot, state[0], self._rng.randrange(32_000), int(finish)


def submissions(rng: random.Random) -> Iterator[Submission]:
    """An endless load."""
    number = 0
    while True:
        number += 1
        prompt = tuple(rng.randrange(32_000) for _ in range(rng.randint(*PROMPT_TOKENS)))
        yield Submission(
            f"r{number}", prompt, SamplingParams(max_tokens=rng.randint(*OUTPUT_TOKENS), seed=number)
        )


def measure(running: int, max_in_flight: int, steps: int) -> Cost:
    """Runs ``steps`` steps at a load of ``running`` requests, after a warm-up that mixes their ages."""
    rng = random.Random(running)
    longest = PROMPT_TOKENS[1] + OUTPUT_TOKENS[1]
    shape = GroupShape(running * blocks_for(longest), running, longest + 1)
    limits = Limits(
        max_num_batched_tokens=max(2048, 4 * running), max_num_seqs=running, max_in_flight=max_in_flight
    )
    core = SchedulerCore(limits, epoch=1, salt=b"bench")
    group = core.join("bench", shape)
    worker, load = StandIn(rng), submissions(rng)
    results: deque[StepResult] = deque()
    plan_us, settle_us, decodes, arrivals = [], [], 0, 0
    for number in range(-2 * OUTPUT_TOKENS[1], steps):
        for _ in range(running - core.stats().running - core.stats().waiting):
            core.submit(next(load), 0.0)
        started = time.thread_time_ns()
        core.place()
        plan = group.plan(0.0)
        planned = time.thread_time_ns()
        if plan is not None:
            results.append(worker.run(plan))
        if len(results) < max_in_flight:
            continue
        result = results.popleft()
        settling = time.thread_time_ns()
        group.settle(result, 0.02)
        settled = time.thread_time_ns()
        if number >= 0 and plan is not None:
            plan_us.append((planned - started) / 1e3)
            settle_us.append((settled - settling) / 1e3)
            decodes += plan.num_decodes
            arrivals += len(plan.admissions)
    wrong = core.check_integrity()
    if wrong:
        raise AssertionError(wrong)
    both_us = [sum(pair) for pair in zip(plan_us, settle_us, strict=True)]
    count = len(both_us)
    spread = [figure for us in (plan_us, settle_us, both_us) for figure in (statistics.median(us), p99(us))]
    return Cost(
        running, max_in_flight, count, decodes / count, arrivals / count, *(round(us, 1) for us in spread)
    )


def p99(values: list[float]) -> float:
    """99th percentile."""
    return statistics.quantiles(values, n=100)[98]


def table(costs: list[Cost]) -> Table:
    """The costs as a table for the terminal."""
    view = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0, 0, 1),
        title="CPU time of a step in the scheduler's core, microseconds",
        caption=f"T3: a forward of {GPU_STEP_US / 1000:.0f} ms (32B, t = 4)\n{machine()}",
    )
    names = ("run", "ahead", "rows", "new", "plan", "p99", "settle", "p99", "both", "p99", "% T3")
    for name in names:
        view.add_column(name, justify="right", no_wrap=True)
    for cost in costs:
        view.add_row(
            str(cost.running),
            str(cost.max_in_flight),
            f"{cost.decodes:.0f}",
            f"{cost.arrivals:.1f}",
            f"{cost.plan_median:.0f}",
            f"{cost.plan_p99:.0f}",
            f"{cost.settle_median:.0f}",
            f"{cost.settle_p99:.0f}",
            f"{cost.both_median:.0f}",
            f"{cost.both_p99:.0f}",
            f"{100 * cost.both_median / GPU_STEP_US:.1f}",
            end_section=cost is costs[-1] or cost.running > costs[costs.index(cost) + 1].running,
        )
    return view


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What planning and settling a step cost.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--steps", type=int, default=2000, help="steps to measure at each load")
    parser.add_argument("--running", type=int, nargs="+", default=[16, 64, 256, 512, 1024])
    options = parser.parse_args()
    costs = [measure(running, ahead, options.steps) for ahead in (1, 2) for running in options.running]
    if options.json:
        json.dump({"machine": machine(), "costs": [asdict(cost) for cost in costs]}, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        Console().print(table(costs))


if __name__ == "__main__":
    main()
