"""The calibrated device meets the row that it is fitted to."""

from __future__ import annotations

import pytest

from bench.paper import data
from bench.paper.calibration import FITTED, calibrated
from bench.paper.case import LENGTHS, Case
from bench.paper.data import Mode
from bench.paper.runs import simulated
from worker_svc.cost.device import Device

BASE = Device.load("h100")
ROW = data.CALIBRATED


def case(mode: Mode) -> Case:
    return Case(ROW.model, ROW.tp, mode, data.IN_FLIGHT)


def test_the_mean_step_takes_the_papers_t3_and_t4() -> None:
    cost, work = case("full").cost(calibrated(BASE, LENGTHS)), LENGTHS.mean_step(data.IN_FLIGHT)
    assert cost.forward_seconds(work) * 1e3 == pytest.approx(data.T3_MS)
    assert cost.sampling_seconds(work, parallel=False) * 1e3 == pytest.approx(data.T4_MS)


@pytest.mark.parametrize("mode", data.BOTH)
def test_a_simulation_of_the_row_meets_it_within_a_percent(mode: Mode) -> None:
    found = simulated(case(mode), calibrated(BASE, LENGTHS), LENGTHS)
    assert found == pytest.approx(ROW.throughput[mode], rel=0.01)


def test_efficiencies_keep_their_ratios_and_links_and_launches_their_times() -> None:
    before, after = BASE.efficiency[0], calibrated(BASE, LENGTHS).efficiency[0]
    factors = [getattr(after, name) / getattr(before, name) for name in FITTED]
    assert factors == pytest.approx([factors[0]] * len(FITTED))
    others = set(type(before).model_fields) - set(FITTED)
    assert [name for name in others if getattr(before, name) != getattr(after, name)] == []


def test_a_calibrated_device_is_fitted_already() -> None:
    once = calibrated(BASE, LENGTHS)
    twice = calibrated(once, LENGTHS)
    assert twice.efficiency[0].weights == pytest.approx(once.efficiency[0].weights)
    assert twice.sampling[0].penalized.row_us == pytest.approx(once.sampling[0].penalized.row_us)
