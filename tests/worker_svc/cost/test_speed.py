"""The speed that a group of a cost model announces."""

from __future__ import annotations

import pytest

from worker_svc.cost.fixed import FixedCost, StepTimes
from worker_svc.cost.speed import StepSpeed, speed_of

TIMES = {
    "name": "test",
    "source": "made up",
    "t3": {"fixed_ms": 18, "prefill_token_us_over_t": 100},
    "t4": {"fixed_ms": 2},
}


def test_a_cost_model_gives_its_step_and_what_a_token_adds() -> None:
    speed = speed_of(FixedCost(StepTimes.model_validate(TIMES), 1))
    assert speed.step_seconds == pytest.approx(0.020)
    assert speed.prefill_token_seconds == pytest.approx(100e-6, rel=0.01)


def test_a_prefill_that_seems_quicker_than_a_step_costs_nothing() -> None:
    assert StepSpeed.of_steps(0.02, 0.019, 128) == StepSpeed(0.02, 0.0)
