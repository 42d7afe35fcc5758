"""Throughput from a simulation: the real scheduler and rank 0, in virtual time."""

from __future__ import annotations

from albireo.planning.simulation.run import simulate
from albireo.planning.workload import Workload, WorkloadRequest
from bench.paper.case import MAX_SEQS, Case, Lengths
from worker_svc.cost.device import Device

BEGIN, END = 0.1, 1.1
"""Throughput is measured between these numbers of lives. A life is the tokens that as many requests make as
run at once; in exactly one, each slot passes through every length once. Before BEGIN prompts are computed."""


def simulated(case: Case, device: Device, lengths: Lengths) -> float:
    """Thousands of output tokens per second, once the run is steady; 0 where the model does not fit."""
    running = case.running(device, lengths)
    if not running:
        return 0.0
    result = simulate(
        _workload(case.in_flight, running, lengths),
        case.cost(device),
        num_blocks=case.blocks(device),
        max_seqs=MAX_SEQS,
        max_model_len=lengths.prompt + lengths.output,
        synchronous=case.mode == "synchronous",
        sampling="driver" if case.mode == "async only" else "auto",
        scheduler={"prefix_cache": False},
    )
    decoded = _steady(result.result_periods, running * lengths.output)
    # The first token of each request comes of its prefill.
    return decoded * lengths.output / (lengths.output - 1) / 1e3


def _workload(in_flight: int, running: int, lengths: Lengths) -> Workload:
    """Begins as if it had run for long: of the requests that fit, each is at another token of its life. What
    it has made so far is part of its prompt. There are enough requests for END lives."""
    ages = [int((i + 0.5) / running * lengths.output) for i in range(running)]
    begun = [WorkloadRequest(0.0, lengths.prompt + age, lengths.output - age) for age in ages]
    fresh = in_flight - running + int(END * running) + 1
    requests = (*begun, *[WorkloadRequest(0.0, lengths.prompt, lengths.output)] * fresh)
    return Workload("steady", requests, concurrency=in_flight, sampling="penalized")


def _steady(periods: list[tuple[float, int]], life: int) -> float:
    """Decoding rows per second."""
    total, rows, seconds = 0, 0, 0.0
    for period, count in periods:
        total += count
        if BEGIN * life < total <= END * life:
            rows += count
            seconds += period
    return rows / seconds
