"""Speeds of groups."""

from __future__ import annotations

import pytest

from scheduler_svc.core.speed import UNKNOWN_STEP_SECONDS, Slowdowns, Speed


def compared(*announced: float) -> list[Speed]:
    """Of groups of one core that announce so many seconds a step, and a tenth of that for a token."""
    slowdowns = Slowdowns()
    speeds = [Speed(step_seconds=seconds, prefill_token_seconds=seconds / 10) for seconds in announced]
    for speed in speeds:
        speed.compare(slowdowns)
    return speeds


def test_a_speed_is_learned_from_steps_and_one_pause_counts_little() -> None:
    speed = Speed()
    assert speed.step_seconds > 0
    for _ in range(200):
        speed.observe(0.01, 0)
        speed.observe(0.01 + 64 * 0.0001, 64)
    assert speed.step_seconds == pytest.approx(0.01)
    assert speed.prefill_token_seconds == pytest.approx(0.0001)
    speed.observe(5.0, 0)
    assert speed.step_seconds < 0.013


def test_a_group_that_has_run_nothing_is_as_much_slower_than_announced_as_the_others() -> None:
    old, twice_as_slow = compared(0.001, 0.002)
    assert twice_as_slow.step_seconds == 0.002
    for _ in range(200):
        old.observe(0.006, 0)
        old.observe(0.006 + 64 * 0.0003, 64)
    assert twice_as_slow.step_seconds == pytest.approx(0.012, rel=0.01)
    assert twice_as_slow.prefill_token_seconds == pytest.approx(0.0006, rel=0.01)


def test_its_own_steps_count_from_the_first_one_on() -> None:
    old, new = compared(0.001, 0.001)
    for _ in range(200):
        old.observe(0.006, 0)
    new.observe(0.004, 0)
    assert 0.005 < new.step_seconds < 0.006
    for _ in range(200):
        old.observe(0.02, 0)
        new.observe(0.004, 0)
    assert new.step_seconds == pytest.approx(0.004, rel=0.01)
    assert old.step_seconds == pytest.approx(0.02, rel=0.01)


def test_groups_that_announce_nothing_say_nothing_of_others() -> None:
    old, silent, new = compared(0.0, 0.0, 0.001)
    for _ in range(100):
        old.observe(0.006, 0)
    assert silent.step_seconds == UNKNOWN_STEP_SECONDS
    assert new.step_seconds == 0.001


def test_a_group_that_announced_nonsense_says_little_of_others() -> None:
    nonsense, new = compared(1e-6, 0.01)
    for _ in range(200):
        nonsense.observe(0.01, 0)
    assert 0.1 < new.step_seconds <= 0.161
