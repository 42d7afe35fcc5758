"""Device time of a token: its terms add up to the devices over the throughput."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from albireo.planning.choice.device_time import (
    HOST,
    SAMPLING,
    UNUSED,
    WAITING,
    MeteredCost,
    group_seconds,
    per_token,
)
from albireo.planning.result import StepTotals
from worker_svc.cost.interface import HostCost
from worker_svc.cost.work import StepWork


class TwoTerms:
    name = "made up"
    tp = 2

    def forward_terms(self, work: StepWork) -> Mapping[str, float]:
        return {"weights": 3.0, "kv": 0.5 * work.decodes}

    def forward_seconds(self, work: StepWork) -> float:
        return sum(self.forward_terms(work).values())

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        return 1.0

    def host(self, work: StepWork) -> HostCost:
        return HostCost()


def test_the_terms_of_all_steps_are_added_up() -> None:
    cost = MeteredCost(TwoTerms())
    assert cost.forward_seconds(StepWork(decodes=2)) == 4.0
    assert cost.forward_seconds(StepWork(decodes=4)) == 5.0
    assert cost.forward == {"weights": 6.0, "kv": 3.0}
    assert (cost.name, cost.tp) == ("made up", 2)


def test_a_run_consists_of_forward_sampling_visible_host_work_and_waiting() -> None:
    terms = group_seconds({"weights": 6.0, "kv": 3.0}, StepTotals(t3=9.0, t4=2.0, visible=1.5), 20.0)
    assert terms == {"weights": 6.0, "kv": 3.0, SAMPLING: 2.0, HOST: 1.5, WAITING: 7.5}


def test_the_device_time_of_a_token_is_the_devices_over_the_throughput() -> None:
    found = per_token({"weights": 6.0, "kv": 2.0}, devices=8, used=6, tokens_per_second=1000.0)
    assert sum(found.values()) == pytest.approx(8 / 1000)
    assert found["weights"] == pytest.approx(0.75 * 6 / 1000)
    assert found[UNUSED] == pytest.approx(2 / 1000)
