"""When blocks of released slots come free, counted before they do."""

from __future__ import annotations

import pytest

from scheduler_svc.core.block_forecast import BlockForecast

from .samples import prompt
from .world import world


def test_blocks_come_in_when_the_last_of_their_owners_leaves() -> None:
    w = world(chunk=64, ahead=2)
    w.submit("r", prompt(40), max_tokens=20, ignore_eos=True, n=3)
    for _ in range(4):
        w.step()
    w.plan()
    for slot, incoming in enumerate((1, 2, 5)):  # its own, then the two that all have
        w.group.core.ledger.release(slot)
        forecast = BlockForecast(w.group.core.ledger, ())
        assert (forecast.now, forecast.later) == (0, incoming)


def test_blocks_that_are_copied_come_in_with_the_steps_of_their_copies() -> None:
    w = world(num_blocks=16)
    w.submit("r", prompt(33), max_tokens=20, ignore_eos=True)
    w.step()
    w.step()
    ledger = w.group.core.ledger
    blocks = ledger.occupied[0].blocks
    ledger.pool.hold(blocks[0])
    ledger.pool.hold(ledger.pool.next_free(1)[0])
    forecast = BlockForecast(ledger, ())
    assert (forecast.now, forecast.later) == (0, 1)
    forecast.add(ledger.occupied[0], blocks)
    assert (forecast.now, forecast.later) == (len(blocks) - 1, 2)


@pytest.mark.parametrize("in_flight", [True, False])
def test_blocks_that_a_plan_in_the_making_releases_come_in_likewise(in_flight: bool) -> None:
    w = world(chunk=64)
    w.submit("r", prompt(40), max_tokens=20, ignore_eos=True, n=3)
    for _ in range(4):
        w.step()
    if in_flight:
        w.plan()
    forecast = BlockForecast(w.group.core.ledger, ())
    for slot, coming in enumerate((1, 2, 5)):
        occupancy = w.group.core.ledger.occupied[slot]
        forecast.add(occupancy, occupancy.blocks)
        assert (forecast.now, forecast.later) == ((0, coming) if in_flight else (coming, 0))
