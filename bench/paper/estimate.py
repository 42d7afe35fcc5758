"""Throughput from the mean step alone, without a simulation: quick enough to try other assumptions.

No request waits for another, steps are all the same, and the host's work is either hidden or not.
"""

from __future__ import annotations

from bench.paper.case import Case, Lengths
from worker_svc.cost.device import Device


def estimated(case: Case, device: Device, lengths: Lengths) -> float:
    """Thousands of output tokens per second; 0 where the model does not fit."""
    rows = case.running(device, lengths)
    return rows / period(case, device, lengths, rows) / 1e3 if rows else 0.0


def period(case: Case, device: Device, lengths: Lengths, rows: int) -> float:
    """Seconds of a step with ``rows`` decoding requests."""
    cost, work = case.cost(device), lengths.mean_step(rows)
    seconds = cost.forward_seconds(work) + cost.sampling_seconds(work, parallel=case.mode == "full")
    if case.mode == "synchronous":
        host = cost.host(work)
        seconds += host.t1 + host.t2 + host.t5
    return seconds
