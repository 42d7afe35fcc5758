"""Steps as a trace in the Chrome format, for Perfetto and chrome://tracing: lanes for each group's stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from albireo.telemetry.step_times import published_at
from albireo.tools.trace.copy_lanes import CopyLanes, LanedCopy, kind_of
from albireo.v1 import control_pb2 as control

RANK_0 = "worker, rank 0"
LANES = (
    (1, "scheduler", 1, "T1 plan and publish"),
    (2, RANK_0, 1, "T2 input"),
    (2, RANK_0, 2, "compute: T3 forward, T4 sampling"),
    (2, RANK_0, 3, "T5 output"),
    (3, "gateway", 1, "hand out"),
)
"""Number and name of a process, number and name of a thread; of each group. Copies between KV blocks and
tiers, and what layers of streamed requests read, have lanes of their own in the process of rank 0."""
FIRST_COPY_LANE = 4
PROCESSES = 3


class _Span(NamedTuple):
    """``begin`` and ``end`` in nanoseconds of the Unix clock; 0: not known."""

    process: int
    thread: int
    category: str
    begin: int
    end: int
    record: control.StepRecord
    label: str = ""  # empty: the number of the step
    more: Mapping[str, Any] = MappingProxyType({})  # arguments of the event


def chrome_trace(records: Iterable[control.StepRecord]) -> dict[str, Any]:
    """A JSON object; times in microseconds from the first moment of any record."""
    known = {(record.group, record.epoch, record.step): record for record in records}
    groups = sorted({record.group for record in known.values()})
    copies = {
        group: CopyLanes(record for record in known.values() if record.group == group) for group in groups
    }
    spans: list[_Span] = []
    for (group, epoch, step), record in sorted(known.items(), key=itemgetter(0)):
        spans += _stages(record, known.get((group, epoch, step + 1)))
    spans += [_copy(copy) for lanes in copies.values() for copy in lanes.copies]
    spans = [span for span in spans if 0 < span.begin <= span.end]
    start = min((span.begin for span in spans), default=0)
    events: list[dict[str, Any]] = []
    for index, group in enumerate(groups):
        suffix = f", {group}" if len(groups) > 1 else ""
        events += _lane_names(PROCESSES * index, suffix, copies[group])
    events += [_event(span, PROCESSES * groups.index(span.record.group), start) for span in spans]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _stages(record: control.StepRecord, following: control.StepRecord | None) -> Iterator[_Span]:
    """``following``: the next step of the group, if it is known."""
    timing = record.timing
    published = published_at(timing, following.timing) if following else 0
    appended = following.timing.previous_appended if following else 0
    label = _label(record)
    yield _Span(1, 1, "plan", timing.plan_begin, timing.plan_end, record)
    yield _Span(1, 1, "publish", timing.plan_end, published, record)
    yield _Span(2, 1, "input", timing.fetched, timing.staged, record)
    yield _Span(2, 2, f"{label}forward", timing.forward_begin, timing.sampling_begin, record)
    if timing.kv_wait:
        # Only the sum over the layers is known: it is drawn as one span from the begin of the forward on.
        end = min(timing.forward_begin + timing.kv_wait, timing.sampling_begin)
        yield _Span(2, 2, f"{label}wait for KV", timing.forward_begin, end, record)
    yield _Span(2, 2, f"{label}sampling", timing.sampling_begin, timing.sampling_end, record)
    yield _Span(2, 3, "output", timing.output_begin, appended, record)
    yield _Span(3, 1, "hand out", record.received, record.handed_out, record)


def _copy(copy: LanedCopy) -> _Span:
    lane, transfer, record = copy
    category = _label(record) + kind_of(transfer)
    size, more = f"{transfer.bytes / 2**20:.1f} MiB", {"tier": transfer.tier, "bytes": transfer.bytes}
    return _Span(2, FIRST_COPY_LANE + lane, category, transfer.begin, transfer.end, record, size, more)


def _label(record: control.StepRecord) -> str:
    """Before the category of what the device does."""
    return "simulated " if record.simulated else ""


def _lane_names(first: int, suffix: str, copies: CopyLanes) -> Iterator[dict[str, Any]]:
    """``first``: the number of the group's first process, less 1."""
    of_copies = [(2, RANK_0, FIRST_COPY_LANE + number, name) for number, name in enumerate(copies.names)]
    for process, process_name, thread, name in sorted([*LANES, *of_copies]):
        yield _meta("process_name", first + process, thread, process_name + suffix)
        yield _meta("thread_name", first + process, thread, name)


def _meta(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _event(span: _Span, first: int, start: int) -> dict[str, Any]:
    """``first``: the number of the group's first process, less 1. ``start``: nanoseconds at the trace's 0."""
    record = span.record
    return {
        "ph": "X",
        "name": f"{span.category} {span.label or record.step}",
        "cat": span.category,
        "pid": first + span.process,
        "tid": span.thread,
        "ts": (span.begin - start) / 1e3,
        "dur": (span.end - span.begin) / 1e3,
        "args": {
            "group": record.group,
            "epoch": record.epoch,
            "step": record.step,
            "decodes": record.decodes,
            "prefill_tokens": record.prefill_tokens,
            "wasted_rows": record.wasted_rows,
            **span.more,
        },
    }
