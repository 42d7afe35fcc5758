"""What the steps of the last seconds come to."""

from __future__ import annotations

import pytest

from albireo.tools.top.recent import HISTORY, MAX_STEPS, SECONDS, WINDOW_SECONDS, RecentSteps
from tests.step_records import overlapped, record


def fed(seconds: float, *, now: float = 100.0) -> RecentSteps:
    """Steps of 10 ms, 8 rows each, that arrived over so many seconds from ``now`` on."""
    recent = RecentSteps(now)
    for index, step in enumerate(overlapped(range(1, round(seconds * 100) + 1))):
        recent.push(step, now + index / 100)
    return recent


def test_rates_are_those_of_the_time_since_the_first_step() -> None:
    figures = fed(2).figures(102.0)
    assert figures.steps == pytest.approx(100)
    assert figures.output_tokens == pytest.approx(800)
    assert (figures.prefill_tokens, figures.rows, figures.look_ahead) == (0, 8, 1)


def test_what_is_older_than_the_window_counts_no_more() -> None:
    recent = fed(2)
    half = recent.figures(101.0 + WINDOW_SECONDS)
    assert half.steps == pytest.approx(100 / WINDOW_SECONDS, rel=0.02)
    assert set(half.times) == set(SECONDS)
    idle = recent.figures(110.0 + WINDOW_SECONDS)
    assert (idle.steps, idle.output_tokens, idle.rows, idle.times) == (0, 0, 0, {})


def test_times_are_those_of_the_steps_definitions() -> None:
    times = fed(1).figures(101.0).times
    assert times["period"]["median"] == pytest.approx(10e-3)
    assert times["t3"]["p99"] == pytest.approx(8e-3)
    assert times["visible"]["median"] == times["visible_t2"]["median"] == pytest.approx(0.1e-3)
    assert times["plan_age"]["median"] == pytest.approx(0.2e-3)


def test_prefill_and_wasted_rows_are_counted() -> None:
    recent = RecentSteps(0.0)
    for step in overlapped(range(1, 5)):
        step.prefill_tokens, step.wasted_rows = 30, 2
        recent.push(step, 1.0)
    figures = recent.figures(3.0)
    assert (figures.prefill_tokens, figures.wasted_rows) == (60, 8)
    assert figures.times == {}  # steps that prefill are not compared


def test_each_sample_is_the_throughput_since_the_one_before() -> None:
    recent = RecentSteps(0.0)
    [step] = overlapped([1])
    recent.push(step, 0.5)
    recent.sample(2.0)
    recent.sample(2.0)  # no time has passed: no sample
    recent.sample(3.0)
    assert recent.figures(3.0).output_history == (4, 0)


def test_what_is_kept_is_bounded() -> None:
    recent = RecentSteps(0.0)
    one = overlapped([1])[0]
    for index in range(MAX_STEPS + 10):
        recent.push(one, 1.0)
        recent.sample(2.0 + index)
    figures = recent.figures(2.0)
    assert figures.steps == MAX_STEPS
    assert len(figures.output_history) == len(figures.prefill_history) == HISTORY


def test_steps_without_decoding_rows_have_no_batch() -> None:
    recent = RecentSteps(0.0)
    only = record(
        1,
        plan=(0, 1),
        published_before=0,
        fetched=1,
        staged=2,
        forward=(2, 3, 4),
        output_begin=4,
        appended_before=0,
        settled=0,
        decodes=0,
        prefill_tokens=9,
    )
    recent.push(only, 0.0)
    assert recent.figures(1.0).rows == 0


def test_tokens_are_counted_by_group_and_steps_of_two_groups_are_not_compared() -> None:
    recent = RecentSteps(0.0)
    for fast, slow in zip(overlapped(range(1, 11)), overlapped(range(1, 11)), strict=True):
        fast.group, slow.group, slow.tokens = "fast", "slow", 2
        recent.push(fast, 0.0)
        recent.push(slow, 0.0)
    figures = recent.figures(2.0)
    assert figures.group_tokens == {"fast": 40, "slow": 10}
    assert figures.times["period"]["median"] == pytest.approx(10e-3)


def test_waits_for_kv_are_a_share_of_the_time_by_group() -> None:
    recent = RecentSteps(0.0)
    for step in overlapped(range(1, 5)):
        step.group, step.prefill_tokens, step.timing.kv_wait = "a", 16, 50_000_000
        recent.push(step, 0.0)
    [other] = overlapped([1])
    other.group = "b"
    recent.push(other, 0.0)
    assert recent.figures(2.0).group_waits == {"a": pytest.approx(0.1), "b": 0}


def test_what_layers_read_is_a_rate_by_group_and_tier() -> None:
    recent = RecentSteps(0.0)
    for step in overlapped(range(1, 5)):
        step.group = "a"
        step.timing.transfers.add(tier="disk", bytes=1000, streamed=True)
        step.timing.transfers.add(tier="disk", bytes=7)
        step.timing.transfers.add(tier="host", bytes=9, write=True)
        recent.push(step, 0.0)
    assert recent.figures(2.0).streamed == {("a", "disk"): 2000}
