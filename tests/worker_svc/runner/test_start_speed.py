"""The speed that a rank measures when it starts."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from albireo.contract.plan import GroupShape, Plan
from tests.worker_svc.cases import SCENARIOS, Case
from tests.worker_svc.oracle import make_runner, run
from tests.worker_svc.pipeline import in_turn
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.cost.speed import StepSpeed
from worker_svc.runner.interface import HostOutput, Runner
from worker_svc.runner.start_speed import FEW, PREFILL_SECONDS, SHORTEST_PROMPT, measure_speed

STEP_NS, TOKEN_NS = 5_000_000, 20_000


class Timed:
    """A runner whose steps take as long as it says; keeps the plans that it got."""

    def __init__(self, shape: GroupShape) -> None:
        self.shape = shape
        self.plans: list[Plan] = []
        self.resets = 0

    def prepare(self, plan: Plan) -> Plan:
        self.plans.append(plan)
        return plan

    def execute(self, plan: Plan) -> Timed:
        tokens = sum(chunk.count for chunk in plan.chunks) + plan.num_decodes
        self._last = STEP_NS + (tokens - 1) * TOKEN_NS
        return self

    def to_host(self) -> HostOutput:
        rows = np.zeros(0, dtype=np.int64)
        return HostOutput(rows, rows, rows, logprobs={})

    def timestamps(self) -> list[int]:
        return [100, 200, 100 + self._last]

    def reset(self) -> None:
        self.resets += 1


def own(seconds: float) -> float:
    """As of a group of one."""
    return seconds


def test_step_and_token_are_told_apart() -> None:
    speed = measure_speed(cast("Runner[Any]", runner := Timed(GroupShape(100, 8, 4096))), own)
    assert speed.step_seconds == pytest.approx(STEP_NS * 1e-9)
    assert speed.prefill_token_seconds == pytest.approx(TOKEN_NS * 1e-9)
    assert runner.resets == 1


def test_a_slow_group_measures_a_shorter_prompt() -> None:
    runner = Timed(GroupShape(100, 8, 4096))
    measure_speed(cast("Runner[Any]", runner), lambda seconds: 1.0)
    assert sum(plan.num_decodes for plan in runner.plans) == FEW  # and each of them once
    prompts = [chunk.count for plan in runner.plans for chunk in plan.chunks]
    assert max(prompts) == SHORTEST_PROMPT > PREFILL_SECONDS


@pytest.mark.parametrize(("shape", "longest"), [(GroupShape(2, 1, 4096), 32), (GroupShape(100, 1, 20), 20)])
def test_what_is_measured_fits_the_group(shape: GroupShape, longest: int) -> None:
    runner = Timed(shape)
    assert measure_speed(cast("Runner[Any]", runner), own).step_seconds > 0
    assert max(chunk.count for plan in runner.plans for chunk in plan.chunks) == longest
    blocks = {block for plan in runner.plans for grant in plan.grants for block in grant.blocks}
    assert max(blocks) < shape.num_blocks


def test_where_no_request_is_long_enough_nothing_is_measured() -> None:
    assert measure_speed(cast("Runner[Any]", runner := Timed(GroupShape(100, 8, 8))), own) == StepSpeed()
    assert runner.plans == []


@pytest.mark.parametrize("family", ["llama31"])
def test_a_model_has_a_speed_and_serves_as_before(cases: dict[str, Case], family: str) -> None:
    case, way, group = cases[family], SCENARIOS["scarce"], TPGroup()
    plans = run(make_runner(case.directory, group, way), group, way, case.asks).plans
    fresh, measured = (make_runner(case.directory, group, way) for _ in range(2))
    speed = measured.measure()
    assert 0 < speed.step_seconds < 1
    assert 0 <= speed.prefill_token_seconds < speed.step_seconds
    assert in_turn(measured, plans) == in_turn(fresh, plans)
