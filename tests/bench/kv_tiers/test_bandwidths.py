"""The simulated table of bandwidths: what must hold of a pipeline of layers."""

from __future__ import annotations

import pytest

from bench.kv_tiers.bandwidths import BANDWIDTHS, MODEL, TP, run, step
from bench.paper.models import MODELS
from worker_svc.cost.device import Device
from worker_svc.cost.physical import PhysicalCost

COST = PhysicalCost(Device.load("h100"), MODELS[MODEL], TP)


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_a_step_takes_at_most_a_twentieth_more_than_reading_or_computing(bandwidth: float) -> None:
    found = step(COST, bandwidth)
    assert 1 <= found.over_ideal <= 1.05
    assert found.seconds == pytest.approx(found.computing + found.waited)


@pytest.mark.parametrize("bandwidth", [4.0, 16.0])
def test_a_run_loses_little_where_the_bandwidth_suffices(bandwidth: float) -> None:
    found = run(COST, bandwidth, conversations=40)
    assert found.fetched > 0.75
    assert found.reading < found.computing
    assert found.over_ideal <= 1.05
    assert found.share_waited <= 0.02


def test_a_tier_that_is_too_slow_is_not_read() -> None:
    found = run(COST, 0.25, conversations=12)
    assert found.fetched == 0
    assert found.waited == 0
