"""The speed of a simulated device."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.planning.simulation.drawn_speed import DrawnSpeed
from albireo.planning.simulation.run import simulate
from albireo.planning.workloads.draw import make_workload
from tests.albireo.planning.simulation.costs import Constant
from worker_svc.cost.device import STEADY, Variation

SPREAD = Variation(step_spread=0.1, slow_spread=0.2, slow_seconds=5.0)


def _factors(variation: Variation, seed: int, count: int = 20_000, period: float = 0.1) -> np.ndarray:
    speed = DrawnSpeed(variation, seed)
    return np.array([speed.factor(number * period) for number in range(count)])


def test_factors_are_1_in_the_mean_and_as_wide_as_asked() -> None:
    found = _factors(SPREAD, seed=3, count=200_000)
    assert found.mean() == pytest.approx(1, abs=0.02)
    assert np.log(found).std() == pytest.approx(np.hypot(0.1, 0.2), rel=0.05)


def test_the_slow_part_is_alike_for_a_while() -> None:
    logs = np.log(_factors(Variation(slow_spread=0.2, slow_seconds=5.0), seed=3, count=100_000))
    for distance, correlation in ((1, np.exp(-0.02)), (50, np.exp(-1)), (500, 0.0)):
        assert np.corrcoef(logs[distance:], logs[:-distance])[0, 1] == pytest.approx(correlation, abs=0.06)


def test_the_same_seed_gives_the_same_factors() -> None:
    assert (_factors(SPREAD, 1, 100) == _factors(SPREAD, 1, 100)).all()
    assert (_factors(SPREAD, 1, 100) != _factors(SPREAD, 2, 100)).any()


def test_a_steady_device_has_one_speed() -> None:
    assert set(_factors(STEADY, 1, 100)) == {1.0}


def test_a_varying_device_has_a_longer_tail_and_the_same_throughput() -> None:
    workload = make_workload("fixed:16", "fixed:32", concurrency=4, num_requests=400)

    def run(variation: Variation) -> tuple[float, float]:
        cost = Constant(variation=variation)
        result = simulate(workload, cost, num_blocks=64, max_seqs=4, max_model_len=64)
        firsts = [times.first - times.sent for times in result.requests if times.first is not None]
        return result.seconds, float(np.quantile(firsts, 0.99) / np.median(firsts))

    steady, varying = run(STEADY), run(Variation(slow_spread=0.3, slow_seconds=0.5))
    assert varying[0] == pytest.approx(steady[0], rel=0.1)
    assert varying[1] > 1.2 * steady[1]
