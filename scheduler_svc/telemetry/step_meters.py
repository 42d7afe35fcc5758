"""Metrics of the steps of one group. The scheduler's meters make one for each name that they export."""

from __future__ import annotations

from albireo.contract.plan import StepResult
from albireo.telemetry import Telemetry
from albireo.telemetry import catalogue as metrics
from albireo.telemetry.step_times import StepWindow
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log

TASKS = ("t1", "t2", "t3", "t4", "t5")
VISIBLE_TASKS = ("t1", "t2", "t5")


class StepMeters:
    """Folds the steps of the group of one name, or of all groups beyond those that are exported by name."""

    def __init__(self, telemetry: Telemetry, name: str) -> None:
        self.steps = 0
        self.prefill_tokens = 0
        group = {"albireo.group": name}
        self._windows: dict[str, StepWindow] = {}  # by the group's own name
        self._tasks = [(task, telemetry.folded(metrics.STEP_TASK, {"task": task, **group})) for task in TASKS]
        self._tasks += [
            (f"visible_{task}", telemetry.folded(metrics.STEP_TASK_VISIBLE, {"task": task, **group}))
            for task in VISIBLE_TASKS
        ]
        self._tasks += [
            ("visible", telemetry.folded(metrics.STEP_VISIBLE, group)),
            ("period", telemetry.folded(metrics.STEP_PERIOD, group)),
            ("plan_age", telemetry.folded(metrics.STEP_PLAN_AGE, group)),
        ]
        self._plan_wait = telemetry.folded(metrics.STEP_PLAN_WAIT, group)
        self._rows = telemetry.folded(metrics.STEP_ROWS, group)

    def add(self, group: str, result: StepResult, message: log.StepResult, waited: float | None) -> None:
        """See :meth:`scheduler_svc.telemetry.meters.SchedulerMeters.step`."""
        self.steps += 1
        self.prefill_tokens += message.prefill_tokens
        self._rows.add(message.decodes)
        if waited is not None:
            self._plan_wait.add(max(0.0, waited))
        record = control.StepRecord(
            epoch=result.epoch,
            step=result.step,
            timing=message.timing,
            decodes=message.decodes,
            prefill_tokens=message.prefill_tokens,
        )
        window = self._windows.get(group)
        if window is None:
            window = self._windows[group] = StepWindow()
        times = window.push(record)
        if times is not None:
            for name, histogram in self._tasks:
                histogram.add(getattr(times, name))

    def closed(self, group: str) -> None:
        """The next steps of a group of this name are another life's."""
        self._windows.pop(group, None)
