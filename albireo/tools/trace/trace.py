"""Steps as a trace in the Chrome format, for Perfetto and chrome://tracing: lanes for each group's stages."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from albireo.telemetry.step_times import published_at
from albireo.v1 import control_pb2 as control

LANES = (
    (1, "scheduler", 1, "T1 plan and publish"),
    (2, "worker, rank 0", 1, "T2 input"),
    (2, "worker, rank 0", 2, "compute: T3 forward, T4 sampling"),
    (2, "worker, rank 0", 3, "T5 output"),
    (3, "gateway", 1, "hand out"),
)
"""Number and name of a process, number and name of a thread; of each group."""
PROCESSES = 3


def chrome_trace(records: Iterable[control.StepRecord]) -> dict[str, Any]:
    """A JSON object; times in microseconds from the first moment of any record."""
    known = {(record.group, record.epoch, record.step): record for record in records}
    groups = sorted({record.group for record in known.values()})
    spans: list[tuple[int, int, str, int, int, control.StepRecord]] = []
    for (group, epoch, step), record in sorted(known.items(), key=itemgetter(0)):
        timing = record.timing
        following = known.get((group, epoch, step + 1))
        published = published_at(timing, following.timing) if following else 0
        appended = following.timing.previous_appended if following else 0
        label = "simulated " if record.simulated else ""
        spans += [
            (1, 1, "plan", timing.plan_begin, timing.plan_end, record),
            (1, 1, "publish", timing.plan_end, published, record),
            (2, 1, "input", timing.fetched, timing.staged, record),
            (2, 2, f"{label}forward", timing.forward_begin, timing.sampling_begin, record),
            (2, 2, f"{label}sampling", timing.sampling_begin, timing.sampling_end, record),
            (2, 3, "output", timing.output_begin, appended, record),
            (3, 1, "hand out", record.received, record.handed_out, record),
        ]
    spans = [span for span in spans if 0 < span[3] <= span[4]]
    start = min((span[3] for span in spans), default=0)
    events: list[dict[str, Any]] = []
    for index, group in enumerate(groups):
        suffix = f", {group}" if len(groups) > 1 else ""
        for process, process_name, thread, name in LANES:
            number = PROCESSES * index + process
            events += [_meta("process_name", number, thread, process_name + suffix)]
            events += [_meta("thread_name", number, thread, name)]
    for process, thread, name, begin, end, record in spans:
        events.append(
            {
                "ph": "X",
                "name": f"{name} {record.step}",
                "cat": name,
                "pid": PROCESSES * groups.index(record.group) + process,
                "tid": thread,
                "ts": (begin - start) / 1e3,
                "dur": (end - begin) / 1e3,
                "args": {
                    "group": record.group,
                    "epoch": record.epoch,
                    "step": record.step,
                    "decodes": record.decodes,
                    "prefill_tokens": record.prefill_tokens,
                    "wasted_rows": record.wasted_rows,
                },
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _meta(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}
