"""Sums over the steps of a run, by the timestamps that each result carries. The clients fold them.

T1 to T5 and what is visible are as in :mod:`albireo.telemetry.step_times`, but of all steps, with prefill or
without.
"""

from __future__ import annotations

from albireo.planning.result import StepTotals
from albireo.v1 import log_pb2 as log


class StepSums:
    """Takes the results in their order. ``close`` once after the last."""

    def __init__(self) -> None:
        self.totals = StepTotals()
        self.periods: list[tuple[float, int]] = []
        self._before: log.StepResult | None = None

    def add(self, result: log.StepResult, appended_ns: int) -> None:
        """``appended_ns``: when the result was in the log."""
        totals, timing = self.totals, result.timing
        totals.steps += 1
        totals.decode_rows += result.decodes
        totals.wasted_rows += result.wasted_rows
        totals.prefill_tokens += result.prefill_tokens
        totals.t2 += (timing.staged - timing.fetched) / 1e9
        totals.t3 += (timing.sampling_begin - timing.forward_begin) / 1e9
        totals.t4 += (timing.sampling_end - timing.sampling_begin) / 1e9
        totals.t5 += (appended_ns - timing.output_begin) / 1e9
        before = self._before
        if before is not None:
            self._publication(before, timing.previous_published)
            gap = (timing.forward_begin - before.timing.sampling_end) / 1e9
            if _continues(result):
                totals.visible += gap
            else:
                totals.idle += gap
            if result.decodes and not (result.prefill_tokens or before.prefill_tokens):
                period = (timing.forward_begin - before.timing.forward_begin) / 1e9
                self.periods.append((period, result.decodes))
        self._before = result

    def close(self) -> None:
        """No more results come."""
        if self._before is not None:
            self._publication(self._before, self._before.timing.fetched)
            self._before = None

    def _publication(self, result: log.StepResult, published: int) -> None:
        """T1 of a step: when its plan was in the log is in the next result."""
        timing = result.timing
        self.totals.t1 += (min(published, timing.fetched) - timing.plan_begin) / 1e9


def _continues(result: log.StepResult) -> bool:
    """Whether the step runs rows of requests that ran before: then a wait before it delayed them."""
    return bool(result.decodes) or (bool(result.prefill_tokens) and not result.admitted)
