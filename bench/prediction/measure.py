"""Predicts workloads for the group of a running stack, and measures them there in turn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from albireo.client import Client
from albireo.planning.figures import summarize_requests
from albireo.planning.simulation.run import simulate
from albireo.planning.workload import Workload
from albireo.runtime.low_priority import run_at_low_priority
from albireo.v1 import control_pb2 as control
from bench.prediction.speed import REFERENCE, AtSpeed, speed_shown
from bench.serve.load import make_requests, run_workload, warm_up
from bench.serve.report import summarize
from bench.serve.steps import with_steps
from worker_svc.cost.interface import CostModel

WARM_UP = 32
"""Requests, as many at a time as in the workload."""


@dataclass(frozen=True, slots=True)
class Group:
    """The group of a stack, as its gateway describes it."""

    num_blocks: int
    max_seqs: int
    max_model_len: int
    vocab_size: int


def group_of(target: str) -> Group:
    with Client(target) as client:
        info, load = client.model_info(), client.load()
    return Group(load.blocks_total, load.slots_total, info.max_model_len, info.vocab_size)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of a workload has shown."""

    summary: dict[str, Any]
    speed: float  # of the machine, see speed.py: the mean of before and after


def predict(workload: Workload, cost: AtSpeed, group: Group, *, draws: int = 1) -> list[dict[str, Any]]:
    """The summaries of ``draws`` simulations, which differ where the speed of the device varies.

    Raises RuntimeError where a request fails in one.
    """
    return [_predict(replace(workload, seed=workload.seed + draw), cost, group) for draw in range(draws)]


def _predict(workload: Workload, cost: AtSpeed, group: Group) -> dict[str, Any]:
    result = simulate(
        workload,
        cost,
        num_blocks=group.num_blocks,
        max_seqs=group.max_seqs,
        max_model_len=group.max_model_len,
    )
    totals = result.totals
    launch = cost.launch_seconds  # which a simulated T3 contains; on real ranks it is a wait before T3
    return {
        "simulated": True,
        **_checked(summarize_requests(result.requests, [])),
        "preemptions": result.preemptions,
        "steps": {
            "steps": totals.steps,
            "t3": totals.t3 / totals.steps - launch,
            "t4": totals.t4 / totals.steps,
            "visible": totals.visible / totals.steps + launch,
        },
    }


def measure(target: str, workload: Workload, group: Group, salt: str) -> dict[str, Any]:
    """The summary of a run. ``salt``: another one makes other prompts, of which none is in the prefix cache.

    Raises RuntimeError where a request failed.
    """
    requests = make_requests(workload, group.vocab_size, salt=salt)
    with Client(target) as client:
        before = client.load().preemptions
        records, steps = run_at_low_priority(with_steps(target, run_workload(target, workload, requests)))
        preemptions = client.load().preemptions - before
    return {
        "simulated": False,
        **_checked(summarize(records)),
        "preemptions": preemptions,
        "steps": mean_steps(steps),
    }


def mean_steps(steps: Sequence[control.StepRecord]) -> dict[str, float]:
    """Means over all steps, in seconds, as a simulation has them: T3, T4, and how long the compute stage
    waited between steps while rows were decoding."""
    if not steps:
        return {}
    waits = [
        max(0, record.timing.forward_begin - before.timing.sampling_end)
        for before, record in itertools.pairwise(steps)
        if record.decodes and record.step == before.step + 1
    ]
    t3 = sum(record.timing.sampling_begin - record.timing.forward_begin for record in steps)
    t4 = sum(record.timing.sampling_end - record.timing.sampling_begin for record in steps)
    return {
        "steps": len(steps),
        "t3": t3 / len(steps) / 1e9,
        "t4": t4 / len(steps) / 1e9,
        "visible": sum(waits) / len(steps) / 1e9,
    }


def measure_in_turn(
    target: str,
    cases: Mapping[str, Workload],
    group: Group,
    cost: CostModel,
    *,
    rounds: int,
    on_begin: Callable[[str], None] = lambda what: None,
) -> dict[str, list[Run]]:
    """Runs all cases once, then all again; so what changes on the machine meanwhile shows as noise."""
    found: dict[str, list[Run]] = {name: [] for name in cases}
    for name, workload in cases.items():
        on_begin(f"warm-up for {name}")
        run_at_low_priority(warm_up(target, workload, WARM_UP, group.vocab_size))
    [calibrated] = predict(REFERENCE, AtSpeed(cost), group)

    def speed(salt: str) -> float:
        on_begin("the machine's speed")
        return speed_shown(calibrated, measure(target, REFERENCE, group, salt))

    before = speed("first")
    for number in range(1, rounds + 1):
        for name, workload in cases.items():
            on_begin(f"{name}, round {number} of {rounds}: {workload.name}")
            summary = measure(target, workload, group, f"round {number}")
            after = speed(f"{name} {number}")
            found[name].append(Run(summary, (before + after) / 2))
            before = after
    return found


def _checked(summary: dict[str, Any]) -> dict[str, Any]:
    if summary["errors"]:
        raise RuntimeError(f"requests failed: {summary['errors']}")
    return summary
