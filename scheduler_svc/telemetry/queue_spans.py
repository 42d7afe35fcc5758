"""Spans of the time for which traced requests wait for a slot; called by the scheduler's thread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from opentelemetry.trace import SpanKind, Tracer

from albireo.contract.codec import finish_name
from albireo.contract.plan import Plan, StepResult, Submission, branches
from albireo.telemetry.context import from_traceparent, request_attributes
from scheduler_svc.core import WaitingEnd

InGroup = tuple[str, int]
"""Name of a group, and a number that is unique within it."""


@dataclass(slots=True, eq=False)
class _Traced:
    """A branch of a request whose trace is recorded."""

    submission: Submission
    since: int  # ns of the Unix clock: from when it waited, or when its plan released its slot
    incarnation: InGroup = ("", 0)  # of its last occupancy of a slot, if it has had one
    slot: InGroup = ("", -1)
    occupancies: int = 0  # so far


class QueueSpans:
    """A span ``queue`` from when a submission was read until the plan that admits it was published; after a
    preemption another, from the plan that took its slot away, and after the closing of its group one from
    there.

    Spans are made afterwards, not while a plan is due. Nothing is kept of requests that are not traced;
    others are kept for as long as the core keeps them.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._by_name: dict[str, _Traced] = {}
        self._by_slot: dict[InGroup, _Traced] = {}
        self._by_incarnation: dict[InGroup, _Traced] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def submitted(self, submission: Submission, at: int) -> None:
        """A submission was read from the inbox, at ``at`` ns of the Unix clock."""
        if submission.traceparent:
            for branch in branches(submission):
                self._by_name.setdefault(branch.request_id, _Traced(branch, at))

    def published(self, group: str, plan: Plan, at: int) -> None:
        """A plan of a group was published at ``at`` ns of the Unix clock."""
        if not self._by_name:
            return
        for ended in plan.ended:  # before their slots count as released
            traced = self._by_name.get(ended.request_id)
            if traced is not None:
                self._end(traced, at, finish_name(ended.reason))
        for slot in plan.released:
            # Preempted, or ended: then ``settled`` or ``published`` forgets it, or has done so already.
            if (traced := self._by_slot.pop((group, slot), None)) is not None:
                traced.since = at
        for admission in plan.admissions:
            traced = self._by_name.get(admission.request_id)
            if traced is not None:
                self._export(traced, at)
                self._by_incarnation.pop(traced.incarnation, None)
                traced.incarnation, traced.slot = (group, admission.incarnation), (group, admission.slot)
                traced.occupancies += 1
                self._by_slot[traced.slot] = self._by_incarnation[traced.incarnation] = traced

    def settled(self, group: str, result: StepResult) -> None:
        """Requests that finished are forgotten."""
        if self._by_name and any(result.finishes):
            for incarnation, finish in zip(result.incarnations, result.finishes, strict=True):
                if finish and (traced := self._by_incarnation.get((group, incarnation))) is not None:
                    self._forget(traced)

    def ended(self, ends: Iterable[WaitingEnd], at: int) -> None:
        """Requests that waited have ended at ``at`` ns of the Unix clock."""
        for end in ends:
            if (traced := self._by_name.get(end.request_id)) is not None:
                self._end(traced, at, finish_name(end.reason))

    def group_closed(self, group: str, at: int) -> None:
        """All requests of a group wait again."""
        for traced in self._by_name.values():
            if traced.incarnation[0] == group:
                self._by_incarnation.pop(traced.incarnation, None)
                if self._by_slot.pop(traced.slot, None) is traced:
                    traced.since = at
                traced.incarnation = traced.slot = ("", -1)

    def close(self, at: int) -> None:
        """The epoch is closed, which ends all requests that waited in it."""
        for traced in list(self._by_name.values()):
            self._end(traced, at, "EPOCH_CLOSED")

    def _end(self, traced: _Traced, at: int, reason: str) -> None:
        if self._by_slot.get(traced.slot) is not traced:  # it waited
            self._export(traced, at, ended=reason)
        self._forget(traced)

    def _forget(self, traced: _Traced) -> None:
        del self._by_name[traced.submission.request_id]
        self._by_incarnation.pop(traced.incarnation, None)
        if self._by_slot.get(traced.slot) is traced:
            del self._by_slot[traced.slot]

    def _export(self, traced: _Traced, at: int, ended: str = "") -> None:
        submission = traced.submission
        attributes: dict[str, str | int | bool] = {
            **request_attributes(submission.request_id),
            "albireo.tenant": submission.tenant,
            "albireo.priority": submission.priority,
            "albireo.preempted": traced.occupancies > 0,
        }
        if ended:
            attributes["albireo.ended"] = ended
        span = self._tracer.start_span(
            "queue",
            from_traceparent(submission.traceparent),
            SpanKind.INTERNAL,
            attributes,
            start_time=traced.since,
        )
        span.end(max(at, traced.since))
