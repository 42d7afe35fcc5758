"""The steps of the last few seconds, and the figures that ``albireo top`` shows of them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, fields

from albireo.telemetry.step_times import StepTimes, StepWindow, spread
from albireo.v1 import control_pb2 as control

WINDOW_SECONDS = 5.0
MAX_STEPS = 20_000
"""Bounds what is kept, should steps be shorter than 250 us."""
HISTORY = 120
"""Samples of the throughput that are kept."""
SECONDS = (*(f.name for f in fields(StepTimes) if f.type == "float"), "visible")
"""The durations in :class:`StepTimes`."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of the steps in the window; rates are per second."""

    steps: float
    output_tokens: float
    prefill_tokens: float
    rows: float  # decoding ones of a step, median
    wasted_rows: int
    look_ahead: int
    times: Mapping[str, Mapping[str, float]]  # median and p99 in seconds; empty where no step decoded
    group_tokens: Mapping[str, float]  # output tokens by the name of the group
    group_waits: Mapping[str, float]  # seconds for which layers waited for KV from a tier, likewise
    streamed: Mapping[tuple[str, str], float]  # bytes that layers read, by the names of a group and its tier
    output_history: tuple[float, ...]  # tokens per second between samples, oldest first
    prefill_history: tuple[float, ...]


class RecentSteps:
    """Takes records as they arrive. ``now``: seconds of any monotonic clock. Not thread-safe."""

    def __init__(self, now: float) -> None:
        self._window = StepWindow()
        self._steps: deque[tuple[float, control.StepRecord, StepTimes | None]] = deque(maxlen=MAX_STEPS)
        self._since: float | None = None  # when the first step of all came
        self._sampled = now
        self._output = self._prefill = 0  # tokens since the last sample
        self._output_history: deque[float] = deque(maxlen=HISTORY)
        self._prefill_history: deque[float] = deque(maxlen=HISTORY)

    def push(self, record: control.StepRecord, now: float) -> None:
        self._since = now if self._since is None else self._since
        self._steps.append((now, record, self._window.push(record)))
        self._output += record.tokens
        self._prefill += record.prefill_tokens

    def sample(self, now: float) -> None:
        """Adds the throughput since the last sample to the history."""
        seconds = now - self._sampled
        if seconds <= 0:
            return
        self._output_history.append(self._output / seconds)
        self._prefill_history.append(self._prefill / seconds)
        self._sampled, self._output, self._prefill = now, 0, 0

    def figures(self, now: float) -> Figures:
        while self._steps and self._steps[0][0] < now - WINDOW_SECONDS:
            self._steps.popleft()
        since = now if self._since is None else self._since
        seconds = max(1e-3, min(WINDOW_SECONDS, now - since))
        records = [record for _, record, _ in self._steps]
        times = [found for _, _, found in self._steps if found is not None]
        tokens, waits = Counter[str](), Counter[str]()  # these in nanoseconds
        streamed = Counter[tuple[str, str]]()
        for record in records:
            tokens[record.group] += record.tokens
            waits[record.group] += record.timing.kv_wait
            for transfer in record.timing.transfers:
                if transfer.streamed:
                    streamed[record.group, transfer.tier] += transfer.bytes
        rows = [record.decodes for record in records if record.decodes]
        return Figures(
            steps=len(records) / seconds,
            output_tokens=sum(record.tokens for record in records) / seconds,
            prefill_tokens=sum(record.prefill_tokens for record in records) / seconds,
            rows=spread(rows)["median"] if rows else 0.0,
            wasted_rows=sum(record.wasted_rows for record in records),
            look_ahead=records[-1].timing.look_ahead if records else 0,
            times={name: spread([getattr(t, name) for t in times]) for name in SECONDS} if times else {},
            group_tokens={group: count / seconds for group, count in tokens.items()},
            group_waits={group: wait / 1e9 / seconds for group, wait in waits.items()},
            streamed={tier: count / seconds for tier, count in streamed.items()},
            output_history=tuple(self._output_history),
            prefill_history=tuple(self._prefill_history),
        )
