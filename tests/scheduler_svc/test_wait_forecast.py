"""The predicted wait follows from the queue and the rate at which requests leave it."""

from __future__ import annotations

import pytest

from scheduler_svc.wait_forecast import MAX_WAIT_SECONDS, UNKNOWN, WaitForecast


def served(rate: float, seconds: float = 120.0, waiting: int = 10) -> WaitForecast:
    """A queue that was left at ``rate`` requests a second until now, which is ``seconds``."""
    forecast = WaitForecast(0.0)
    left = 0.0
    for look in range(1, round(4 * seconds) + 1):
        departures = int(rate * look / 4) - int(left)
        left += departures
        forecast.observe(look / 4, waiting=waiting, departures=departures)
    return forecast


def test_a_free_slot_and_no_queue_are_no_wait() -> None:
    assert WaitForecast(0.0).seconds(waiting=0, free_slots=1) == 0


def test_without_experience_the_wait_is_not_known() -> None:
    assert WaitForecast(0.0).seconds(waiting=3, free_slots=0) == UNKNOWN
    assert WaitForecast(0.0).seconds(waiting=0, free_slots=0) == UNKNOWN


def test_a_queue_is_waited_for_at_its_rate() -> None:
    forecast = served(4.0)
    assert forecast.seconds(waiting=19, free_slots=0) == pytest.approx(5, rel=0.05)
    assert forecast.seconds(waiting=0, free_slots=0) == pytest.approx(0.25, rel=0.05)


def test_time_without_a_queue_says_nothing() -> None:
    forecast = served(4.0)
    forecast.observe(10_000.0, waiting=0, departures=3)
    assert forecast.seconds(waiting=19, free_slots=0) == pytest.approx(5, rel=0.05)


def test_where_nothing_leaves_any_more_the_wait_grows_to_its_bound() -> None:
    forecast = served(4.0)
    waits = []
    for seconds in (30, 60, 90, 1000):
        forecast.observe(120.0 + seconds, waiting=19, departures=0)
        waits.append(forecast.seconds(waiting=19, free_slots=0))
    assert waits == sorted(waits)
    assert waits[0] > 10
    assert waits[-1] == MAX_WAIT_SECONDS
