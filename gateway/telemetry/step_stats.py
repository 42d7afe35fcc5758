"""Histograms of the times of steps, for ``Control.GetStepStats``. The step feed fills them."""

from __future__ import annotations

from albireo.telemetry.histogram import Histogram
from albireo.telemetry.step_times import BOUNDS, StepTimes
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


class StepStats:
    """Totals since the gateway started. About ten microseconds per step."""

    def __init__(self) -> None:
        self._histograms = {name: Histogram(BOUNDS) for name in NAMES}
        self._kv_wait = Histogram(BOUNDS)  # of all steps that waited: most of them prefill
        self._wasted_rows = 0
        self._look_ahead = 0

    def add(self, times: StepTimes) -> None:
        for name, histogram in self._histograms.items():
            histogram.add(getattr(times, name))
        self._look_ahead = times.look_ahead

    def wait_for_kv(self, seconds: float) -> None:
        """Layers of a step waited so long, in all, for KV from a tier."""
        self._kv_wait.add(seconds)

    def waste(self, rows: int) -> None:
        self._wasted_rows += rows

    def message(self, *, simulated: bool) -> control.StepStats:
        histograms = [
            control.Histogram(name=name, bounds=found.bounds, counts=found.counts, sum=found.sum)
            for name, found in (*self._histograms.items(), ("kv_wait", self._kv_wait))
        ]
        return control.StepStats(
            histograms=histograms,
            wasted_rows=self._wasted_rows,
            look_ahead=self._look_ahead,
            simulated=simulated,
        )
