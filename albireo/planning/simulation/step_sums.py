"""Sums over the steps of a run, by the timestamps that each result carries. The clients fold them.

T1 to T5 and what is visible are as in :mod:`albireo.telemetry.step_times`, but of all steps, with prefill or
without.
"""

from __future__ import annotations

from albireo.contract.plan import BLOCK_SIZE
from albireo.planning.result import StepTotals
from albireo.telemetry.step_times import KEPT_STEPS, visible_seconds
from albireo.v1 import log_pb2 as log


class StepSums:
    """Takes the results in their order. ``close`` once after the last."""

    def __init__(self) -> None:
        self.totals = StepTotals()
        self.periods: list[tuple[float, int]] = []  # see SimulationResult.step_periods
        self.result_periods: list[tuple[float, int]] = []
        self._before: log.StepResult | None = None
        self._appended: dict[int, int] = {}  # by step, of the last KEPT_STEPS

    def add(self, step: int, result: log.StepResult, appended_ns: int) -> None:
        """``appended_ns``: when the result was in the log."""
        totals, timing = self.totals, result.timing
        totals.steps += 1
        totals.decode_rows += result.decodes
        totals.wasted_rows += result.wasted_rows
        totals.prefill_tokens += result.prefill_tokens
        totals.kv_wait += timing.kv_wait / 1e9
        totals.streamed_tokens += len(result.streamed)
        for admitted in result.admitted:
            totals.cached_tokens += admitted.num_cached
        for read in result.read:
            totals.fetched_tokens[read.tier] += BLOCK_SIZE * read.blocks
        totals.t2 += (timing.staged - timing.fetched) / 1e9
        totals.t3 += (timing.sampling_begin - timing.forward_begin) / 1e9
        totals.t4 += (timing.sampling_end - timing.sampling_begin) / 1e9
        totals.t5 += (appended_ns - timing.output_begin) / 1e9
        if self._before is not None:
            self._follow(self._before, step, result, appended_ns)
        self._before = result
        self._appended[step] = appended_ns
        self._appended.pop(step - KEPT_STEPS, None)

    def close(self) -> None:
        """No more results come."""
        if self._before is not None:
            self._publication(self._before, self._before.timing.fetched)
            self._before = None

    def _follow(self, before: log.StepResult, step: int, result: log.StepResult, appended_ns: int) -> None:
        totals, timing = self.totals, result.timing
        self._publication(before, timing.previous_published)
        gap = (timing.forward_begin - before.timing.sampling_end) / 1e9
        if not _continues(result):
            totals.idle += gap
        elif gap > 0:
            settled = self._appended.get(timing.settled_step, 0)
            t1, t2, t5 = visible_seconds(before.timing, timing, settled)
            totals.visible += gap
            totals.visible_t1 += t1
            totals.visible_t2 += t2
            totals.visible_t5 += t5
        if result.decodes:
            self.result_periods.append(((appended_ns - self._appended[step - 1]) / 1e9, result.decodes))
            if not (result.prefill_tokens or before.prefill_tokens):
                period = (timing.forward_begin - before.timing.forward_begin) / 1e9
                self.periods.append((period, result.decodes))

    def _publication(self, result: log.StepResult, published: int) -> None:
        """T1 of a step: when its plan was in the log is in the next result."""
        timing = result.timing
        self.totals.t1 += (min(published, timing.fetched) - timing.plan_begin) / 1e9


def _continues(result: log.StepResult) -> bool:
    """Whether the step runs rows of requests that ran before: then a wait before it delayed them."""
    return bool(result.decodes) or (bool(result.prefill_tokens) and not result.admitted)
