"""Spans of traced requests: when each was prefilled and decoded.

The output stage of rank 0 calls :class:`TokenSpans`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.trace import SpanKind, Tracer

from albireo.contract.plan import Admission, Finish, Plan
from albireo.telemetry.context import from_traceparent, request_attributes
from albireo.v1 import control_pb2 as control
from worker_svc.buffers.arrays import Ints


@dataclass(slots=True, eq=False)
class _Traced:
    """One occupancy of a slot by a request whose trace is recorded. Times are ns of the Unix clock."""

    admission: Admission
    began: int  # of the step that ran its first chunk
    first: int = 0  # end of the sampling of its first token in this slot; 0: there is none yet


class TokenSpans:
    """A span ``prefill`` from the begin of the step with a request's first chunk to its first token, and a
    span ``decode`` from there to its last; both again when it was preempted. Never one per token or step.

    Belongs to the output stage of rank 0: ``release`` before a step's admissions change its books, ``step``
    once the result is in the log. Holds at most one entry a slot, nothing of requests that are not traced;
    a step in which no traced request comes, goes or gets its first token costs next to nothing.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._by_slot: dict[int, _Traced] = {}
        self._prefilling: dict[int, _Traced] = {}  # those of them without a token
        self._left: list[tuple[_Traced, int, str]] = []  # with tokens and reason; recorded with the step
        self._epoch = 0
        self._last = 0  # end of the last step's sampling

    def __len__(self) -> int:
        return len(self._by_slot)

    def release(self, plan: Plan, outputs: Ints) -> None:
        """``outputs``: tokens that each slot's request had brought before this step."""
        if not self._by_slot:
            return
        reasons = {ended.request_id: ended.reason.name.lower() for ended in plan.ended}
        for slot in plan.released:
            traced = self._forget(slot)
            if traced is not None:
                reason = reasons.get(traced.admission.request_id, "")
                self._left.append((traced, int(outputs[slot]), reason))

    def step(
        self, plan: Plan, timing: control.StepTiming, slots: Ints, finishes: Sequence[int], outputs: Ints
    ) -> None:
        """The result is in the log. ``slots`` and ``finishes``: its rows; ``outputs``: as they are now."""
        if plan.epoch != self._epoch:
            self.close()
            self._epoch = plan.epoch
        while self._left:
            self._end(*self._left.pop(), self._last)
        now = self._last = timing.sampling_end
        for admission in plan.admissions:
            if admission.traceparent:
                traced = _Traced(admission, timing.forward_begin)
                self._by_slot[admission.slot] = self._prefilling[admission.slot] = traced
        if not self._by_slot:
            return
        for slot, traced in list(self._prefilling.items()):
            if outputs[slot] > traced.admission.num_outputs:
                traced.first = now
                self._prefill(traced, now)
                del self._prefilling[slot]
        if any(finishes):
            for row, finish in enumerate(finishes):
                ended = self._forget(int(slots[row])) if finish else None
                if ended is not None:
                    self._end(ended, int(outputs[slots[row]]), Finish(finish).name.lower(), now)

    def close(self) -> None:
        """Nothing of what runs goes on: the epoch is over, or the rank stops."""
        for slot in list(self._by_slot):
            if (traced := self._forget(slot)) is not None:
                self._end(traced, traced.admission.num_outputs, "error", self._last)

    def _forget(self, slot: int) -> _Traced | None:
        self._prefilling.pop(slot, None)
        return self._by_slot.pop(slot, None)

    def _end(self, traced: _Traced, outputs: int, reason: str, at: int) -> None:
        """``reason``: empty for a preemption."""
        why: dict[str, Any] = (
            {gen_ai.GEN_AI_RESPONSE_FINISH_REASONS: [reason]} if reason else {"albireo.preempted": True}
        )
        if not traced.first:
            self._prefill(traced, at, **why)
            return
        if outputs > traced.admission.num_outputs:
            why[gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS] = outputs - traced.admission.num_outputs
        self._span("decode", traced, traced.first, at, **why)

    def _prefill(self, traced: _Traced, at: int, **attributes: Any) -> None:
        admission = traced.admission
        if admission.num_outputs:
            attributes["albireo.recomputed_tokens"] = admission.num_outputs
        attributes[gen_ai.GEN_AI_USAGE_INPUT_TOKENS] = len(admission.tokens) - admission.num_outputs
        attributes[gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS] = admission.num_cached
        self._span("prefill", traced, traced.began, at, **attributes)

    def _span(self, name: str, traced: _Traced, began: int, at: int, **attributes: Any) -> None:
        span = self._tracer.start_span(
            name,
            from_traceparent(traced.admission.traceparent),
            SpanKind.INTERNAL,
            {**request_attributes(traced.admission.request_id), **attributes},
            start_time=began,
        )
        span.end(max(began, at))
