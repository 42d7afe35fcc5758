"""The speed of the machine, and predictions at that speed."""

from __future__ import annotations

import pytest

from albireo.planning.workloads.draw import make_workload
from bench.prediction.measure import Group, predict
from bench.prediction.speed import AtSpeed, speed_shown
from tests.albireo.planning.simulation.costs import Constant
from worker_svc.cost.interface import HostCost
from worker_svc.cost.work import StepWork

GROUP = Group(num_blocks=64, max_seqs=8, max_model_len=256, vocab_size=300)


def test_a_machine_of_half_the_speed_takes_twice_as_long() -> None:
    cost = Constant(host_cost=HostCost(t1=0.001, t2=0.002, t5=0.003))
    half, work = AtSpeed(cost, 0.5), StepWork(decodes=1, greedy=1)
    assert half.forward_seconds(work) == 2 * cost.t3
    assert half.sampling_seconds(work, parallel=False) == 2 * cost.t4
    assert half.host(work) == HostCost(t1=0.002, t2=0.004, t5=0.006)


def test_a_simulation_at_a_speed_shows_that_speed() -> None:
    workload = make_workload("fixed:20", "fixed:10", concurrency=4, num_requests=16)
    [calibrated] = predict(workload, AtSpeed(Constant()), GROUP)
    [now] = predict(workload, AtSpeed(Constant(), 0.8), GROUP)
    assert speed_shown(calibrated, now) == pytest.approx(0.8)
