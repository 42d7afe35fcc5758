"""Blocks per second to and from tiers, from loads that are made up."""

from __future__ import annotations

from albireo.tools.top.recent import WINDOW_SECONDS
from albireo.tools.top.tier_rates import Blocks, TierRates
from albireo.v1 import control_pb2 as control


def load(fetched: int, spilled: int, incarnation: str = "0a") -> control.Load:
    disk = control.TierLoad(name="disk", blocks_fetched=fetched, blocks_spilled=spilled)
    return control.Load(groups=[control.GroupLoad(incarnation=incarnation, tiers=[disk])])


def test_rates_are_those_of_the_loads_in_the_window() -> None:
    rates = TierRates()
    assert rates.rates() == {}
    rates.push(load(100, 0), 10.0)
    assert rates.rates() == {}  # one load says nothing of a rate
    rates.push(load(140, 6), 12.0)
    assert rates.rates() == {("0a", "disk"): Blocks(20, 3)}
    rates.push(load(140, 6), 12.1 + WINDOW_SECONDS)
    assert rates.rates() == {("0a", "disk"): Blocks(0, 0)}


def test_loads_that_are_far_apart_have_a_rate_too() -> None:
    rates = TierRates()
    for number in range(3):
        rates.push(load(60 * number, 0), 60.0 * number)
    assert rates.rates() == {("0a", "disk"): Blocks(1, 0)}


def test_totals_that_begin_anew_have_no_rate() -> None:
    rates = TierRates()
    rates.push(load(100, 50), 0.0)
    rates.push(load(1, 60), 1.0)  # another scheduler leads the group
    assert rates.rates() == {}
    rates.push(load(200, 100, incarnation="0b"), 2.0)  # another life of the group
    assert rates.rates() == {}
