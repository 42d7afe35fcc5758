"""Groups of steps that compute about the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from albireo.planning.calibration.groups import grouped
from albireo.planning.calibration.steps import MeasuredStep
from worker_svc.cost.work import StepWork

STEP = MeasuredStep(
    "load", 0.0, StepWork(decodes=4, context=1000, greedy=4), False, t1=1, t2=1, t3=1, t4=0, t5=1, gap=None
)


def test_a_group_has_the_mean_of_its_durations_and_of_what_is_predicted_for_each_step() -> None:
    steps = [
        replace(STEP, t3=seconds, work=replace(STEP.work, context=1000 + number))
        for number, seconds in enumerate((0.9, 0.1, 0.5))
    ]
    [group] = grouped(steps, lambda step: step.t3)
    assert group.seconds == pytest.approx(0.5)
    assert len(group.steps) == 3
    assert group.mean(lambda work: work.context) == 1001


def test_a_step_that_was_held_up_counts_as_three_times_the_median() -> None:
    [group] = grouped([replace(STEP, t3=t3) for t3 in (1.0, 1.0, 1.0, 100.0)], lambda step: step.t3)
    assert group.seconds == pytest.approx(1.5)


def test_steps_of_other_rows_contexts_loads_or_kinds_are_groups_of_their_own() -> None:
    others = [
        replace(STEP, work=replace(STEP.work, decodes=6)),
        replace(STEP, work=replace(STEP.work, context=4000)),
        replace(STEP, work=replace(STEP.work, greedy=0, drawn=4)),
        replace(STEP, load="other"),
        replace(STEP, parallel=True),
    ]
    assert len(grouped([STEP, *others], lambda step: step.t3)) == 6


def test_more_steps_weigh_more_up_to_a_limit() -> None:
    weights = [grouped([STEP] * count, lambda step: step.t3)[0].weight for count in (1, 4, 100, 1000)]
    assert weights[0] < weights[1] < weights[2] == weights[3]


def test_the_spread_is_half_the_distance_of_the_quartiles() -> None:
    [group] = grouped([replace(STEP, t3=t3) for t3 in (1.0, 1.8, 2.0, 2.4, 9.0)], lambda step: step.t3)
    assert group.spread == pytest.approx((2.4 - 1.8) / 2 / 2.64)


def test_steps_without_the_part_are_left_out() -> None:
    assert grouped([STEP], lambda step: step.t4) == []
