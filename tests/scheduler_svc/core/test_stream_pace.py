"""How many layers a streamed slot runs in a step together with others."""

from __future__ import annotations

import pytest

from albireo.contract.plan import GroupShape
from albireo.contract.tiers import TierShape
from scheduler_svc.core.speed import Speed
from scheduler_svc.core.step_in_flight import StepInFlight
from scheduler_svc.core.stream_pace import PLAIN_STEPS, STREAM_SHARE, StreamPace

STEP = 0.01
LAYERS = 4


def pace(read: float) -> StreamPace:
    """``read``: seconds of one block."""
    shape = GroupShape(16, 4, 1000, (TierShape("disk", 80, read, 0.0),), LAYERS)
    return StreamPace(Speed(step_seconds=STEP, prefill_token_seconds=0.0), shape)


def layers_of(p: StreamPace, plans: int, *, blocks: int) -> list[int]:
    found = []
    for _ in range(plans):
        p.begin_plan()
        found.append(p.layers(LAYERS, blocks=blocks, rows=0))
    return found


def test_layers_take_their_share_of_the_steps() -> None:
    p = pace(1e-4)
    seconds = 40 * 1e-4 / LAYERS  # of a layer: two steps' share
    found = layers_of(p, 200, blocks=40)
    assert sum(found) * seconds == pytest.approx(200 * STREAM_SHARE * STEP, rel=0.1)
    assert set(found) <= {0, 1}


def test_a_layer_that_takes_longer_than_many_steps_runs_in_the_end() -> None:
    assert 1 in layers_of(pace(1e-2), 1000, blocks=40)


def test_credit_is_no_more_than_for_one_row() -> None:
    p = pace(1e-4)
    for _ in range(1000):
        p.begin_plan()
    p.begin_plan()
    assert p.layers(LAYERS, blocks=40, rows=0) == LAYERS
    assert p.layers(LAYERS, blocks=40, rows=0) == 0


def test_some_steps_are_without_streamed_rows_so_that_they_can_be_measured() -> None:
    found = layers_of(pace(1e-9), 2 * PLAIN_STEPS, blocks=1)
    assert found.count(0) == 2
    assert found.count(LAYERS) == 2 * PLAIN_STEPS - 2


def test_what_layers_cost_is_measured() -> None:
    p = pace(1.0)
    for number in range(200):  # a layer of 40 blocks adds 1 ms
        p.observe(STEP + 4e-3, StepInFlight(number, streamed_blocks=4 * 40))
    found = layers_of(p, 1000, blocks=40)
    assert sum(found) * 1e-3 == pytest.approx(1000 * STREAM_SHARE * STEP, rel=0.15)
    for number in range(500):  # steps have become shorter than those without spans: it costs nothing
        p.observe(STEP / 2, StepInFlight(number, streamed_blocks=4 * 40))
    assert sum(layers_of(p, 160, blocks=40)) == 150 * LAYERS
