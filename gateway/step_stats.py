"""Histograms of where the time of steps goes."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, repeat

from albireo.steps import StepTimes
from albireo.v1 import control_pb2 as control

NAMES = (
    "period",
    "t1",
    "t2",
    "t3",
    "t4",
    "t5",
    "visible_t1",
    "visible_t2",
    "visible_t5",
    "visible",
    "plan_age",
)
# 1 us to 10 s, four buckets to a factor of ten: enough to tell 70 us from 150 us.
BOUNDS = tuple(accumulate(repeat(10**0.25, 28), lambda bound, factor: bound * factor, initial=1e-6))


class StepStats:
    """Totals since the gateway started. About ten microseconds a step."""

    def __init__(self) -> None:
        self._counts = {name: [0] * (len(BOUNDS) + 1) for name in NAMES}
        self._sums = dict.fromkeys(NAMES, 0.0)
        self._wasted_rows = 0
        self._look_ahead = 0

    def add(self, times: StepTimes) -> None:
        for name in NAMES:
            value = getattr(times, name)
            self._counts[name][bisect_left(BOUNDS, value)] += 1
            self._sums[name] += value
        self._look_ahead = times.look_ahead

    def waste(self, rows: int) -> None:
        self._wasted_rows += rows

    def message(self, *, simulated: bool) -> control.StepStats:
        histograms = [
            control.Histogram(name=name, bounds=BOUNDS, counts=self._counts[name], sum=self._sums[name])
            for name in NAMES
        ]
        return control.StepStats(
            histograms=histograms,
            wasted_rows=self._wasted_rows,
            look_ahead=self._look_ahead,
            simulated=simulated,
        )
