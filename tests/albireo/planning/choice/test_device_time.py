"""Device time of a token: its terms add up to the devices over the throughput."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from albireo.planning.choice.device_time import (
    HOST,
    SAMPLING,
    TIERS,
    UNUSED,
    WAITING,
    MeteredCost,
    Reading,
    per_token,
    run_terms,
)
from albireo.planning.result import StepTotals
from worker_svc.cost.device import STEADY
from worker_svc.cost.interface import HostCost
from worker_svc.cost.work import StepWork


class TwoTerms:
    name = "made up"
    tp = 2
    variation = STEADY

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
    before = cost.read()
    assert cost.forward_seconds(StepWork(decodes=4)) == 5.0
    assert cost.sampling_seconds(StepWork(decodes=4), parallel=True) == 1.0
    assert before == Reading({"weights": 3.0, "kv": 1.0}, steps=1, rows=2)
    assert cost.read().since(before) == Reading({"weights": 3.0, "kv": 2.0, SAMPLING: 1.0}, 1, 4)
    assert (cost.name, cost.tp) == ("made up", 2)


def test_what_is_not_computed_is_waiting_divided_as_in_the_whole_run() -> None:
    terms = run_terms({"weights": 9.0, SAMPLING: 3.0}, 20.0, StepTotals(visible=3.0, idle=1.0))
    assert terms == {"weights": 9.0, SAMPLING: 3.0, HOST: 6.0, WAITING: 2.0}
    terms = run_terms({"weights": 9.0, SAMPLING: 3.0}, 20.0, StepTotals(visible=2.0, idle=1.0, kv_wait=1.0))
    assert terms == {"weights": 9.0, SAMPLING: 3.0, HOST: 4.0, TIERS: 2.0, WAITING: 2.0}


def test_the_device_time_of_a_token_is_the_devices_over_the_throughput() -> None:
    found = per_token({"weights": 6.0, "kv": 2.0}, devices=8, used=6, tokens_per_second=1000.0)
    assert sum(found.values()) == pytest.approx(8 / 1000)
    assert found["weights"] == pytest.approx(0.75 * 6 / 1000)
    assert found[UNUSED] == pytest.approx(2 / 1000)
