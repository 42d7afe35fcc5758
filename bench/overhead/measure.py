"""Runs one stack at one load and collects the times of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albireo.client import Client
from albireo.planning.workloads.draw import make_workload
from albireo.runtime.low_priority import run_at_low_priority
from albireo.telemetry.step_times import KvWaits, StepTimes, kv_waits, step_times
from bench.serve.load import make_requests, run_load
from bench.serve.steps import with_steps
from bench.stack import running_stack

SETTLE_STEPS = 16
"""Steps left out after the last prefill, and before the first request ends."""


@dataclass(frozen=True, slots=True)
class Load:
    """``batch`` requests that decode side by side, all of one length."""

    batch: int
    prompt: int
    outputs: int
    sink: bool  # the gateway detokenizes and sends nothing


@dataclass(frozen=True, slots=True)
class Mode:
    """Which of Albireo's parallelism is on."""

    synchronous: bool
    sampling: str  # the worker's setting


@dataclass(frozen=True, slots=True)
class Measured:
    """One mode at one load."""

    steps: list[StepTimes]  # with all rows decoding
    tpot: list[float]  # seconds, at the clients; empty with a sink
    seconds: float  # of the whole run, prefill included
    simulated: bool
    kv_waits: KvWaits  # of all steps of the run


def measure(options: Mapping[str, Any], load: Load, mode: Mode) -> Measured:
    """``options``: fields of StackSettings. Raises RuntimeError if a request failed, and what
    ``running_stack`` raises."""
    environment = {
        "ALBIREO_WORKER_MAX_SEQS": str(load.batch),
        "ALBIREO_WORKER_SAMPLING": mode.sampling,
        "ALBIREO_SCHEDULER_MAX_NUM_SEQS": str(load.batch),
        "ALBIREO_GATEWAY_SINK": str(load.sink),
    }
    with running_stack({**options, "synchronous": mode.synchronous}, environment) as stack:
        return measure_at(stack.target, load)


def measure_at(target: str, load: Load, seed: int = 0) -> Measured:
    """Measures a running, otherwise idle stack. ``seed``: of the prompts. Raises RuntimeError, and
    ValueError for a load that is longer than the context."""
    with Client(target) as client:
        info = client.model_info()
    workload = make_workload(
        f"fixed:{load.prompt}",
        f"fixed:{load.outputs}",
        num_requests=load.batch,
        seed=seed,
        max_model_len=info.max_model_len,
    )
    requests = make_requests(workload, info.vocab_size)
    records, steps = run_at_low_priority(with_steps(target, run_load(target, requests)))
    failed = [record.error for record in records if record.error]
    if failed:
        raise RuntimeError(f"{len(failed)} requests failed: {failed[0]}")
    steady = [step for step in step_times(steps) if step.rows == load.batch][SETTLE_STEPS:-SETTLE_STEPS]
    if not steady:
        raise RuntimeError(f"no step had all {load.batch} rows decoding: more outputs are needed")
    tpot = [record.times.tpot for record in records if record.times.tpot is not None]
    seconds = max(record.ended for record in records) - min(record.sent for record in records)
    simulated = any(step.simulated for step in steps)
    return Measured(steady, tpot, seconds, simulated, kv_waits(steps))
