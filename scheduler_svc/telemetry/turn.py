"""What one turn of the scheduler's loop read and published, for metrics and spans.

The service's thread reports it once all plans that are due have been published, so that no plan waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.contract.plan import Plan, StepResult, Submission
from albireo.telemetry import Telemetry
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import GroupStats, WaitingEnd
from scheduler_svc.telemetry.meters import SchedulerMeters
from scheduler_svc.telemetry.queue_spans import QueueSpans


class TurnTelemetry:
    """Collects during a turn, and reports at its end. Groups are given by their names."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.meters = SchedulerMeters(telemetry)
        self.spans = QueueSpans(telemetry.tracer)
        self._submitted: list[Submission] = []
        self._settled: list[tuple[str, StepResult, log.StepResult, float | None]] = []
        self._published: list[tuple[str, Plan, int]] = []
        self._ended: Sequence[WaitingEnd] = ()
        self._closed: list[str] = []

    def submitted(self, submission: Submission) -> None:
        """A request was queued."""
        self._submitted.append(submission)

    def settled(self, group: str, result: StepResult, message: log.StepResult, waited: float | None) -> None:
        """A result was taken in; see :meth:`SchedulerMeters.step`."""
        self._settled.append((group, result, message, waited))

    def published(self, group: str, plan: Plan, at_ns: int) -> None:
        """A plan is in the log since ``at_ns`` of the Unix epoch."""
        self._published.append((group, plan, at_ns))

    def ended(self, ends: Sequence[WaitingEnd]) -> None:
        """Requests that waited have ended."""
        self._ended = ends

    def group_closed(self, group: str, cause: str, last: GroupStats) -> None:
        """The requests of a group wait again. ``last``: its state before."""
        self._closed.append(group)
        self.meters.group_closed(group, cause, last)

    def report(self, read_ns: int) -> None:
        """``read_ns``: when the entries of this turn had been read."""
        for group, result, message, waited in self._settled:
            self.spans.settled(group, result)
            if self.meters.wanted:
                self.meters.step(group, result, message, waited)
        for group in self._closed:
            self.spans.group_closed(group, read_ns)
        for submission in self._submitted:
            self.spans.submitted(submission, read_ns)
        for group, plan, at_ns in self._published:
            self.spans.published(group, plan, at_ns)
        if self._ended:
            self.spans.ended(self._ended, read_ns)
        self._submitted.clear()
        self._published.clear()
        self._settled.clear()
        self._closed.clear()
        self._ended = ()
