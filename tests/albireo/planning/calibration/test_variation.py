"""Variation that is measured is the one that simulations draw."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.planning.calibration.steps import MeasuredStep
from albireo.planning.calibration.variation import measure_variation
from albireo.planning.simulation.drawn_speed import DrawnSpeed
from tests.albireo.planning.calibration.measurements import CONFIG, DEVICE
from worker_svc.cost.device import Variation
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.work import StepWork

COST = PhysicalCost(DEVICE, CONFIG, 1)
LOADS = [StepWork(decodes=rows, context=rows * 100, greedy=rows) for rows in (4, 16, 64)]


def _steps(variation: Variation, seed: int) -> list[MeasuredStep]:
    """Loads of 20 steps of about 0.1 s, a second apart, several times in turn."""
    speed, steps, now = DrawnSpeed(variation, seed), [], 0.0
    for _ in range(12):
        for number, work in enumerate(LOADS):
            for _ in range(20):
                t3 = COST.forward_seconds(work) * speed.factor(now)
                steps.append(MeasuredStep(str(number), now, work, False, 0, 0, t3, 0, 0, None))
                now += 0.1
            now += 1.0
    return steps


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("step", "slow"), [(0.05, 0.2), (0.1, 0.1), (0.2, 0.0)])
def test_both_parts_are_found(step: float, slow: float, seed: int) -> None:
    drawn = Variation(step_spread=step, slow_spread=slow, slow_seconds=1.0)
    found = measure_variation(COST, _steps(drawn, seed))
    assert found.step_spread == pytest.approx(step, abs=0.04)
    assert found.slow_spread == pytest.approx(slow, abs=0.06)
    if slow > step:
        assert 0.3 < found.slow_seconds < 3.0


def test_like_steps_that_take_equally_long_are_steady() -> None:
    found = measure_variation(COST, _steps(Variation(), seed=0))
    assert (found.step_spread, found.slow_spread) == pytest.approx((0, 0), abs=1e-6)


def test_too_few_steps_say_nothing() -> None:
    assert measure_variation(COST, _steps(Variation(step_spread=0.5), seed=0)[:3]) == Variation()


def test_an_error_of_the_model_is_no_variation() -> None:
    wrong = PhysicalCost(DEVICE.model_copy(update={"gb_per_second": 3.0}), CONFIG, 1)
    found = measure_variation(wrong, _steps(Variation(), seed=0))
    assert np.hypot(found.step_spread, found.slow_spread) < 1e-6
