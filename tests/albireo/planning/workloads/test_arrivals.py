"""When the requests of a workload arrive."""

from __future__ import annotations

import itertools
import statistics

import pytest

from albireo.planning.workload import Workload, WorkloadRequest
from albireo.planning.workloads.arrivals import with_arrivals


def arriving(count: int, rate: float, burstiness: float = 1.0, seed: int = 1) -> list[float]:
    workload = Workload("w", (WorkloadRequest(0, 5, 5),) * count, seed=seed)
    return [r.at for r in with_arrivals(workload, rate=rate, burstiness=burstiness).requests]


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 16.0])
def test_gaps_have_the_mean_of_the_rate_and_vary_by_the_burstiness(burstiness: float) -> None:
    found = arriving(4000, 20.0, burstiness)
    gaps = [found[0], *(after - before for before, after in itertools.pairwise(found))]
    assert min(gaps) >= 0
    assert statistics.mean(gaps) == pytest.approx(1 / 20, rel=0.1)
    # A Gamma distribution of shape k varies by its mean / sqrt(k).
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(burstiness**-0.5, rel=0.1)


def test_arrivals_follow_the_seed() -> None:
    assert arriving(9, 3) == arriving(9, 3) != arriving(9, 3, seed=2)


def test_a_closed_loop_has_no_arrival_times() -> None:
    timed = with_arrivals(Workload("w", (WorkloadRequest(7.5, 5, 5),)), concurrency=3)
    assert (timed.concurrency, timed.requests[0].at, timed.name) == (3, 0, "3 at a time, w")


def test_the_name_says_how_requests_arrive() -> None:
    workload = Workload("w", (WorkloadRequest(0, 5, 5),), concurrency=4)
    assert with_arrivals(workload, rate=2.5).name == "2.5 requests/s, w"
    assert with_arrivals(workload, rate=2.5, burstiness=0.5).name == "2.5 requests/s with burstiness 0.5, w"
    assert with_arrivals(workload, rate=2.5).concurrency == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": -1.0}, "rate: -1: must"),
        ({"rate": float("inf")}, "rate: inf: must"),
        ({"rate": float("nan")}, "rate: nan: must"),
        ({"rate": 1.0, "burstiness": 0.0}, "burstiness: 0: must"),
        ({"rate": 1.0, "burstiness": float("nan")}, "burstiness: nan: must"),
        ({"concurrency": 0}, "concurrency: 0: must"),
        ({"concurrency": 4, "rate": 1.0}, "concurrency: is of a closed loop"),
        ({"burstiness": 0.5}, "burstiness: is of arrivals at a rate"),
    ],
)
def test_a_bad_value_is_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_arrivals(Workload("w", (WorkloadRequest(0, 5, 5),)), **arguments)  # type: ignore[arg-type]
