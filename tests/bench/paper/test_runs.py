"""Simulated throughput against what the mean step says."""

from __future__ import annotations

import pytest

from bench.paper.calibration import calibrated
from bench.paper.case import LENGTHS, Case, Lengths
from bench.paper.data import MODES, Mode
from bench.paper.estimate import estimated
from bench.paper.runs import simulated
from worker_svc.cost.device import Device

DEVICE = calibrated(Device.load("h100"), LENGTHS)
SHORT = Lengths(prompt=20, output=100)


@pytest.mark.parametrize("mode", MODES)
def test_a_simulation_agrees_with_the_mean_step_where_all_requests_fit(mode: Mode) -> None:
    case = Case("Llama2-13B", 2, mode, 48)
    assert simulated(case, DEVICE, SHORT) == pytest.approx(estimated(case, DEVICE, SHORT), rel=0.04)


def test_where_they_do_not_fit_it_loses_a_little_to_preemption() -> None:
    lengths = Lengths(prompt=100, output=200)
    case = Case("Qwen2.5-32B", 1, "full", 200)
    assert case.running(DEVICE, lengths) < 180
    assert 0.85 < simulated(case, DEVICE, lengths) / estimated(case, DEVICE, lengths) < 1.0


def test_a_model_that_does_not_fit_makes_nothing() -> None:
    assert simulated(Case("Llama3.1-70B", 1, "full", 16), DEVICE, SHORT) == 0.0
