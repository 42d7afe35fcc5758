"""Predictions of a group, and the means over measured steps."""

from __future__ import annotations

import pytest

from albireo.models import TINY
from albireo.planning.workloads.draw import make_workload
from albireo.v1 import control_pb2 as control
from bench.prediction.measure import Group, mean_steps, predict
from bench.prediction.speed import AtSpeed
from tests.albireo.planning.simulation.costs import Constant
from worker_svc.cost.device import STEADY, Device, Efficiency, Variation
from worker_svc.cost.load import load_cost_model
from worker_svc.cost.physical import PhysicalCost
from worker_svc.model.config import ModelConfig

GROUP = Group(num_blocks=64, max_seqs=8, max_model_len=256, vocab_size=300)


def record(step: int, begin: int, sampling: int, end: int, decodes: int = 1) -> control.StepRecord:
    """Times in milliseconds."""
    timing = control.StepTiming(
        forward_begin=begin * 10**6, sampling_begin=sampling * 10**6, sampling_end=end * 10**6
    )
    return control.StepRecord(step=step, decodes=decodes, timing=timing)


def test_waits_count_between_steps_that_follow_each_other_while_rows_decode() -> None:
    steps = [
        record(1, 0, 10, 12, decodes=0),
        record(2, 14, 20, 22),  # 2 ms after the step before it
        record(3, 500, 510, 512, decodes=0),  # the group was idle
        record(5, 600, 610, 612),  # a step was missed
    ]
    assert mean_steps(steps) == {
        "steps": 4,
        "t3": pytest.approx(0.009),
        "t4": pytest.approx(0.002),
        "visible": pytest.approx(0.0005),
    }
    assert mean_steps([]) == {}


def test_a_prediction_has_the_figures_of_a_measurement_and_is_marked_as_simulated() -> None:
    cost = load_cost_model("paper-32b", ModelConfig.from_dir(TINY), 4)
    workload = make_workload("fixed:20", "fixed:10", concurrency=4, num_requests=8)
    [found] = predict(workload, AtSpeed(cost), GROUP)
    assert found["simulated"] is True
    assert found["output_tokens"] == 80
    assert found["steps"]["t3"] > 0.01
    assert found["ttft"]["p99"] > found["steps"]["t3"]


def test_draws_differ_where_the_speed_varies_and_only_there() -> None:
    workload = make_workload("fixed:20", "fixed:10", concurrency=4, num_requests=8)

    def different(variation: Variation) -> int:
        found = predict(workload, AtSpeed(Constant(), 1.0, variation), GROUP, draws=3)
        return len({summary["seconds"] for summary in found})

    assert different(STEADY) == 1
    assert different(Variation(slow_spread=0.2)) == 3


def test_the_launch_of_a_step_is_a_wait_as_on_real_ranks() -> None:
    workload = make_workload("fixed:20", "fixed:10", concurrency=4, num_requests=8)

    def steps(launch: float) -> dict[str, float]:
        efficiency = Efficiency(weights=1, kv=1, compute=1, attention=1, step_us=launch)
        device = Device.load("h100").model_copy(update={"efficiency": (efficiency,)})
        found = predict(workload, AtSpeed(PhysicalCost(device, ModelConfig.from_dir(TINY), 1)), GROUP)
        return dict(found[0]["steps"])

    without, with_it = steps(0), steps(5000)
    assert with_it["t3"] == pytest.approx(without["t3"], abs=1e-7)
    assert with_it["visible"] == pytest.approx(without["visible"] + 0.005, abs=1e-3)


def test_a_workload_that_the_group_cannot_run_is_an_error() -> None:
    cost = load_cost_model("paper-32b", ModelConfig.from_dir(TINY), 4)
    group = Group(num_blocks=64, max_seqs=8, max_model_len=16, vocab_size=300)
    with pytest.raises(ValueError, match="longest request"):
        predict(make_workload("fixed:20", "fixed:10"), AtSpeed(cost), group)
