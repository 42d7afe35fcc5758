"""The workloads that are predicted and measured. None of them is part of ``albireo calibrate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from albireo.planning.workload import Workload
from albireo.planning.workloads.draw import make_workload

STEADY_AT, MIXED_AT = 16, 48
BURST_LOAD = 0.6
"""Rate of the bursts, as a share of the requests that a closed loop of 16 of the same lengths ends."""
BURSTINESS = 0.25
BURST_LENGTHS = "uniform:32-160", "uniform:16-80"
ROUNDS_OF_SLOTS = 4
"""A workload has at least so many requests for each that runs at a time."""


def make_cases(requests_per_second: Callable[[Workload], float], seconds: float) -> Mapping[str, Workload]:
    """Workloads that take about ``seconds`` each, by name.

    ``requests_per_second``: what a closed loop is predicted to end. It sets the number of requests and the
    rate of the bursts, so that the queue of any machine is neither always empty nor ever longer.
    """
    steady = "fixed:96", "fixed:64"
    mixed = "uniform:16-256", "uniform:8-128"

    def closed(lengths: tuple[str, str], concurrency: int) -> Workload:
        least = ROUNDS_OF_SLOTS * concurrency
        probe = make_workload(*lengths, concurrency=concurrency, num_requests=least)
        count = max(least, round(requests_per_second(probe) * seconds))
        return make_workload(*lengths, concurrency=concurrency, num_requests=count)

    probe = make_workload(*BURST_LENGTHS, concurrency=STEADY_AT, num_requests=ROUNDS_OF_SLOTS * STEADY_AT)
    rate = float(f"{BURST_LOAD * requests_per_second(probe):.2g}")
    return {
        "steady": closed(steady, STEADY_AT),
        "mixed": closed(mixed, MIXED_AT),
        "bursts": make_workload(
            *BURST_LENGTHS, rate=rate, burstiness=BURSTINESS, num_requests=max(32, round(rate * seconds))
        ),
    }
