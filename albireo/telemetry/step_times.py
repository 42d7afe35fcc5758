"""Where the time of steps goes: T1 to T5 in full, and what of T1, T2 and T5 was visible.

*Visible* is what delayed the next forward: the gap between the end of one step's sampling and the begin
of the next forward on rank 0, while rows were decoding. It is split by what the later step waited for last:
the result it was planned on (T5), its plan (T1), its tensors and the hand-over to the compute stage (T2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from albireo.v1 import control_pb2 as control

# 1 us to 10 s, four buckets to a factor of ten: enough to distinguish 70 us from 150 us.
BOUNDS = tuple(float(f"{10 ** (power / 4 - 6):.3g}") for power in range(29))
"""Upper bounds of histogram buckets, in seconds."""

KEPT_STEPS = 32
"""More than are ever in flight: the record that says when a settled step was appended is still known."""
MAX_GROUPS = 128
"""Groups come and go: the one that is known the longest is forgotten."""

TASKS = (
    ("T1 schedule", "t1", "visible_t1"),
    ("T2 input", "t2", "visible_t2"),
    ("T3 forward", "t3", "t3"),
    ("T4 sampling", "t4", "t4"),
    ("T5 output", "t5", "visible_t5"),
)
"""Label of each task, and the fields of StepTimes that hold it in full and what of it was visible."""


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Durations of one decoding step that followed directly on another, in seconds."""

    period: float  # from the start of the last forward to the start of this one
    t1: float  # from the scheduler's reading of what the plan is based on, to the plan in the log
    t2: float  # from the plan's arrival at rank 0 to staged tensors
    t3: float
    t4: float
    t5: float  # from ids on the host to the result in the log
    visible_t1: float
    visible_t2: float
    visible_t5: float
    plan_age: float  # how long the plan had been in the log when rank 0 fetched it
    look_ahead: int
    rows: int  # decoding ones
    wasted_rows: int

    @property
    def visible(self) -> float:
        return self.visible_t1 + self.visible_t2 + self.visible_t5


@dataclass(frozen=True, slots=True)
class KvWaits:
    """For how long layers waited for KV from a tier, over some steps of any kind."""

    steps: int  # in which any layer waited
    seconds: float
    share_of_t3: float  # of all the steps


class StepWindow:
    """Turns records, which come one by one, those of a group in order, into times.

    Keeps KEPT_STEPS records of each of MAX_GROUPS groups. Steps of two groups are never compared.
    """

    def __init__(self) -> None:
        self._groups: dict[str, dict[tuple[int, int], control.StepRecord]] = {}

    def push(self, record: control.StepRecord) -> StepTimes | None:
        """Times of the step before this one in its group: when Redis acknowledged a step's entries is in the
        next record.

        None for a step without decoding rows or with prefill, and where the step before or after it is not
        known.
        """
        epoch, step = record.epoch, record.step
        known = self._groups.setdefault(record.group, {})
        known[epoch, step] = record
        if len(known) > KEPT_STEPS:
            del known[next(iter(known))]
        if len(self._groups) > MAX_GROUPS:
            del self._groups[next(iter(self._groups))]
        before, current = known.get((epoch, step - 2)), known.get((epoch, step - 1))
        if not (before and current and current.decodes) or current.prefill_tokens or before.prefill_tokens:
            return None
        after_settled = known.get((epoch, current.timing.settled_step + 1))
        appended = after_settled.timing.previous_appended if after_settled else 0
        return _times(before.timing, current, record.timing, appended)


def published_at(timing: control.StepTiming, after: control.StepTiming) -> int:
    """When a plan was in the log, in ns: the earlier of its acknowledgement, which the scheduler may read
    late, and its fetch by rank 0."""
    return min(after.previous_published, timing.fetched)


def visible_seconds(
    before: control.StepTiming, timing: control.StepTiming, appended: int
) -> tuple[float, float, float]:
    """What was visible of T1, T2 and T5 before a step. ``before``: timing of the step before it;
    ``appended``: when the result that its plan is based on was in the log, in ns."""
    free, begin = before.sampling_end, max(before.sampling_end, timing.forward_begin)
    settled = min(max(appended, free), begin)
    planned = min(max(timing.fetched, settled), begin)
    return (planned - settled) / 1e9, (begin - planned) / 1e9, (settled - free) / 1e9


def step_times(records: Iterable[control.StepRecord]) -> list[StepTimes]:
    """Times of all steps that ``records``, in order, hold enough about."""
    window = StepWindow()
    return [times for record in records if (times := window.push(record)) is not None]


def kv_waits(records: Iterable[control.StepRecord]) -> KvWaits:
    """Of all ``records``, also those that prefill, of which there are no step times."""
    timings = [record.timing for record in records]
    waits = [timing.kv_wait / 1e9 for timing in timings if timing.kv_wait]
    forward = sum(max(0, timing.sampling_begin - timing.forward_begin) for timing in timings) / 1e9
    return KvWaits(len(waits), sum(waits), sum(waits) / forward if forward else 0.0)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and P99 of values, one or more."""
    return {"median": float(np.median(values)), "p99": float(np.percentile(values, 99))}


def _times(
    before: control.StepTiming, record: control.StepRecord, after: control.StepTiming, appended: int
) -> StepTimes:
    timing = record.timing
    t1, t2, t5 = visible_seconds(before, timing, appended)
    published = published_at(timing, after)
    return StepTimes(
        period=(timing.forward_begin - before.forward_begin) / 1e9,
        t1=(published - timing.plan_begin) / 1e9,
        t2=(timing.staged - timing.fetched) / 1e9,
        t3=(timing.sampling_begin - timing.forward_begin) / 1e9,
        t4=(timing.sampling_end - timing.sampling_begin) / 1e9,
        t5=(after.previous_appended - timing.output_begin) / 1e9,
        visible_t1=t1,
        visible_t2=t2,
        visible_t5=t5,
        plan_age=(timing.fetched - published) / 1e9,
        look_ahead=timing.look_ahead,
        rows=record.decodes,
        wasted_rows=record.wasted_rows,
    )
