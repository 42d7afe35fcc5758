"""The workloads that are predicted and measured."""

from __future__ import annotations

from albireo.planning.workload import Workload
from bench.prediction.cases import make_cases


def test_a_fast_machine_gets_more_requests_and_a_higher_rate() -> None:
    probes: list[Workload] = []

    def at(rate: float) -> dict[str, Workload]:
        def requests_per_second(workload: Workload) -> float:
            probes.append(workload)
            return rate

        return dict(make_cases(requests_per_second, seconds=60))

    slow, fast = at(2.0), at(20.0)
    assert {name: len(workload.requests) for name, workload in slow.items()} == {
        "steady": 120,
        "mixed": 192,  # four for each of 48, although fewer would take a minute
        "bursts": 72,
    }
    assert {name: len(workload.requests) for name, workload in fast.items()} == {
        "steady": 1200,
        "mixed": 1200,
        "bursts": 720,
    }
    assert [workload.concurrency for workload in fast.values()] == [16, 48, 0]
    assert fast["bursts"].requests[-1].at < 90
    assert all(probe.concurrency for probe in probes)
