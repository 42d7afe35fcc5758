"""How many layers a streamed slot runs in a step together with others."""

from __future__ import annotations

import random

import pytest

from albireo.contract.plan import GroupShape
from albireo.contract.tiers import TierShape
from scheduler_svc.core.speed import Speed
from scheduler_svc.core.step_in_flight import StepInFlight
from scheduler_svc.core.stream_pace import LEAST_SHARE, PLAIN_STEPS, STREAM_SHARE, StreamPace

STEP = 0.01
LAYERS = 4


def pace(read: float) -> StreamPace:
    """``read``: seconds of one block."""
    shape = GroupShape(16, 4, 1000, (TierShape("disk", 80, read, 0.0),), LAYERS)
    return StreamPace(Speed(step_seconds=STEP, prefill_token_seconds=0.0), shape)


def layers_of(p: StreamPace, plans: int, *, blocks: int) -> list[int]:
    found = []
    for _ in range(plans):
        p.begin_plan(others_run=True)
        found.append(p.layers(LAYERS, blocks=blocks, rows=0))
    return found


def test_layers_take_their_share_of_the_steps() -> None:
    p = pace(1e-4)
    seconds = 40 * 1e-4 / LAYERS  # of a layer: two steps' share
    found = layers_of(p, 200, blocks=40)
    assert sum(found) * seconds == pytest.approx(200 * STREAM_SHARE * STEP, rel=0.1)
    assert set(found) == {0, 1, 2}  # 2 after the steps without


def test_a_layer_that_takes_longer_than_many_steps_runs_in_the_end() -> None:
    assert 1 in layers_of(pace(1e-2), 1000, blocks=40)


def test_credit_is_no_more_than_for_one_row() -> None:
    p = pace(1e-4)
    for _ in range(1000):
        p.begin_plan(others_run=True)
    p.begin_plan(others_run=True)
    assert p.layers(LAYERS, blocks=40, rows=0) == LAYERS
    assert p.layers(LAYERS, blocks=40, rows=0) == 0


def test_some_steps_are_without_streamed_rows_so_that_they_can_be_measured() -> None:
    found = layers_of(pace(1e-9), 2 * PLAIN_STEPS, blocks=1)
    assert found.count(0) == 4
    assert found.count(LAYERS) == 2 * PLAIN_STEPS - 4


def share_of_steps(p: StreamPace, *, seconds: float, noise: float, ahead: float) -> float:
    """What layers of 40 blocks add to steps that differ by ``noise``, as a share of all steps. They take
    ``seconds`` each, and a part of that is ``ahead``, in the step before."""
    rng, added, before = random.Random(1), 0.0, StepInFlight(0)
    for number in range(1, 4000):
        p.begin_plan(others_run=True)
        count = p.layers(LAYERS, blocks=40, rows=1)
        step = StepInFlight(number, streamed_blocks=40 * count)
        layers = count * ahead + before.streamed_blocks / 40 * (1 - ahead)
        if step.streamed_blocks or before.streamed_blocks:
            p.observe(STEP * (1 + rng.uniform(-noise, noise)) + layers * seconds, before, step)
        added += layers * seconds * (number >= 1000)
        before = step
    return added / (3000 * STEP)


@pytest.mark.parametrize("ahead", [0.0, 0.9])
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("announced", [0.25, 1.0, 4.0])
def test_what_layers_cost_is_measured(announced: float, noise: float, ahead: float) -> None:
    """Also where it is less than the difference of steps."""
    seconds = 5e-4
    p = pace(announced * seconds * LAYERS / 40)
    share = share_of_steps(p, seconds=seconds, noise=noise, ahead=ahead)
    assert share == pytest.approx(STREAM_SHARE, rel=0.2)


def test_a_prompt_does_not_slow_down_the_rows_behind_it() -> None:
    """Each of its rows attends to all blocks: that is not what a row takes."""
    p = pace(1e-6)
    for number in range(100):
        p.observe(1.0, StepInFlight(number, streamed_blocks=160, streamed_prompt=True))
    for _ in range(2):
        p.begin_plan(others_run=True)
    assert p.layers(LAYERS, blocks=40, rows=1) == LAYERS
    assert p.layers(LAYERS, blocks=40, rows=2) == 0


def test_layers_that_seem_to_add_nothing_take_a_part_of_the_reads_at_least() -> None:
    p = pace(1e-3)
    for number in range(500):  # steps have become shorter than those without spans
        p.observe(STEP / 2, StepInFlight(number, streamed_blocks=4 * 40))
    least = 40 * 1e-3 / LAYERS * LEAST_SHARE
    assert sum(layers_of(p, 1600, blocks=40)) * least == pytest.approx(1600 * STREAM_SHARE * STEP, rel=0.1)


def test_a_step_of_streamed_slots_alone_ends_soon() -> None:
    """Of their layers some run, one of each at least: others that come would have to wait for all."""
    p = pace(0.4)
    p.begin_plan(others_run=False)
    assert p.layers(LAYERS, blocks=2, rows=1) == 2
    assert p.layers(LAYERS, blocks=2, rows=1) == 1
    p = pace(1e-4)
    p.begin_plan(others_run=False)
    assert p.layers(LAYERS, blocks=40, rows=1) == LAYERS
