"""What one turn of the scheduler's loop read and published, for metrics and spans.

The service's thread reports it once all plans that are due have been published, so that no plan waits for it.
"""

from __future__ import annotations

from albireo.contract.plan import Plan, StepResult, Submission
from albireo.telemetry import Telemetry
from albireo.v1 import log_pb2 as log
from scheduler_svc.telemetry.meters import SchedulerMeters
from scheduler_svc.telemetry.queue_spans import QueueSpans


class TurnTelemetry:
    """Collects during a turn, and reports at its end."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.meters = SchedulerMeters(telemetry)
        self.spans = QueueSpans(telemetry.tracer)
        self._submitted: list[Submission] = []
        self._settled: list[tuple[StepResult, log.StepResult, float | None]] = []
        self._published: list[tuple[Plan, int]] = []

    def submitted(self, submission: Submission) -> None:
        """A request was queued."""
        self._submitted.append(submission)

    def settled(self, result: StepResult, message: log.StepResult, waited: float | None) -> None:
        """A result was taken in; see :meth:`SchedulerMeters.step`."""
        self._settled.append((result, message, waited))

    def published(self, plan: Plan, at_ns: int) -> None:
        """A plan is in the log since ``at_ns`` of the Unix epoch."""
        self._published.append((plan, at_ns))

    def report(self, read_ns: int) -> None:
        """``read_ns``: when the entries of this turn had been read."""
        for submission in self._submitted:
            self.spans.submitted(submission, read_ns)
        for plan, at_ns in self._published:
            self.spans.published(plan, at_ns)
        for result, message, waited in self._settled:
            self.spans.settled(result)
            if self.meters.wanted:
                self.meters.step(result, message, waited)
        self._submitted.clear()
        self._published.clear()
        self._settled.clear()
