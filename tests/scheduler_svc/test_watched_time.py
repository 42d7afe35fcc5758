"""Watched time goes on while looks come in time, and stands still in a pause."""

from __future__ import annotations

import pytest

from albireo.virtual.clock import VirtualClock
from scheduler_svc.watched_time import LATE_SECONDS, LOOK_SECONDS, WatchedTime


def look_for(watched: WatchedTime, clock: VirtualClock, seconds: float) -> None:
    for _ in range(round(seconds / LOOK_SECONDS)):
        clock.sleep(LOOK_SECONDS)
        watched.look()


def test_looks_in_time_count_in_full() -> None:
    with VirtualClock() as clock:
        watched = WatchedTime(clock)
        look_for(watched, clock, 10)
        assert watched.now == pytest.approx(10)
        assert watched.within(4) == pytest.approx(4)


def test_a_pause_counts_as_one_late_look() -> None:
    with VirtualClock() as clock:
        watched = WatchedTime(clock)
        look_for(watched, clock, 2)
        clock.sleep(60)
        watched.look()
        look_for(watched, clock, 3)
        assert watched.now == pytest.approx(2 + LATE_SECONDS + 3)
        assert watched.within(2) == pytest.approx(2)
        assert watched.within(3 + 60) == pytest.approx(3 + LATE_SECONDS)
        assert watched.within(3 + 30) == pytest.approx(3)  # it began within the pause
