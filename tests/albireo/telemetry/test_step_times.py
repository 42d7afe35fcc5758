"""What delayed the next forward, and by whom."""

from __future__ import annotations

import pytest

from albireo.telemetry.step_times import KEPT_STEPS, MAX_GROUPS, KvWaits, StepWindow, kv_waits, step_times
from albireo.v1 import control_pb2 as control
from tests.step_records import overlapped, synchronous


def test_overlapped_steps_show_the_hand_over_and_nothing_else() -> None:
    times = step_times(overlapped(range(1, 9)))
    assert len(times) == 6  # the first has none before it, the last none after
    for step in times:
        assert step.period == pytest.approx(10e-3)
        assert step.t1 == pytest.approx(0.8e-3)
        assert step.t2 == pytest.approx(1e-3)
        assert step.t3 == pytest.approx(8e-3)
        assert step.t4 == pytest.approx(1.9e-3)
        assert step.t5 == pytest.approx(0.6e-3)
        assert step.plan_age == pytest.approx(0.2e-3)
        assert (step.visible_t1, step.visible_t5) == (0, 0)
        assert step.visible_t2 == step.visible == pytest.approx(0.1e-3)


def test_in_turn_each_stage_delays_the_next_forward() -> None:
    for step in step_times(synchronous(range(1, 9)))[1:]:
        assert step.visible_t5 == pytest.approx(0.5e-3)
        assert step.visible_t1 == pytest.approx(1e-3)
        assert step.visible_t2 == pytest.approx(0.6e-3)
        assert step.period == pytest.approx(step.t3 + step.t4 + step.visible)


def test_a_late_plan_is_seen_as_t1() -> None:
    records = overlapped(range(1, 6))
    late = records[2].timing
    late.fetched, late.staged = late.forward_begin - 60_000, late.forward_begin - 10_000
    times = step_times(records)
    assert times[1].visible_t1 == pytest.approx(40e-6)
    assert times[1].visible_t2 == pytest.approx(60e-6)


def test_a_plan_counts_as_published_when_a_rank_has_it() -> None:
    records = overlapped(range(1, 5))
    records[2].timing.previous_published = records[1].timing.fetched + 700_000  # heard late
    times = step_times(records)
    assert times[0].plan_age == 0
    assert times[0].t1 == pytest.approx(1e-3)


@pytest.mark.parametrize("change", ["no decodes", "prefill", "prefill before", "gap"])
def test_steps_that_cannot_be_compared_are_left_out(change: str) -> None:
    records = overlapped(range(1, 6))
    if change == "no decodes":
        records[2].decodes = 0
    elif change == "prefill":
        records[2].prefill_tokens = 5
    elif change == "prefill before":
        records[1].prefill_tokens = 5
    else:
        del records[1]
    assert len(step_times(records)) < 3


def test_a_window_forgets() -> None:
    window = StepWindow()
    for record in overlapped(range(1, 10 * KEPT_STEPS)):
        window.push(record)
    assert [len(known) for known in window._groups.values()] == [KEPT_STEPS]
    for number in range(2 * MAX_GROUPS):
        window.push(control.StepRecord(group=f"g{number}", epoch=1, step=1))
    assert len(window._groups) == MAX_GROUPS


def test_steps_of_two_groups_are_not_compared() -> None:
    """They run at the same time, and have the same numbers."""
    alone, mixed = overlapped(range(1, 9)), []
    for fast, slow in zip(alone, synchronous(range(1, 9)), strict=True):
        other = control.StepRecord()
        other.CopyFrom(slow)
        other.group = "another"
        mixed += [fast, other]
    assert step_times(mixed)[::2] == step_times(alone)
    assert step_times(mixed)[1::2] == step_times(synchronous(range(1, 9)))


def test_waits_for_kv_are_a_share_of_t3_of_all_steps_also_of_those_that_prefill() -> None:
    records = overlapped(range(1, 5))
    assert kv_waits(records) == KvWaits(0, 0, 0)
    assert kv_waits([]) == KvWaits(0, 0, 0)
    records[2].prefill_tokens = 16
    records[2].timing.kv_wait = 4_000_000
    found = kv_waits(records)
    assert found.steps == 1
    assert found.seconds == pytest.approx(4e-3)
    assert found.share_of_t3 == pytest.approx(4 / 32)
