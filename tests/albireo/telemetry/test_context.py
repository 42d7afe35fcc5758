"""W3C trace context on its way through metadata and logs."""

from __future__ import annotations

import pytest
from opentelemetry.trace import NoOpTracer

from albireo.contract import codec
from albireo.contract.plan import Admission, Plan, SamplingParams, Submission, branches
from albireo.telemetry.context import (
    from_metadata,
    from_traceparent,
    request_attributes,
    trace_id_of,
    traceparent_of,
)
from albireo.v1 import log_pb2 as log
from tests.albireo.telemetry.kept import PARENT_ID, TRACE_ID, TRACEPARENT, KeptTelemetry

SAMPLING = SamplingParams(max_tokens=3, seed=0)


def test_a_clients_context_becomes_the_parent_and_decides_whether_to_record() -> None:
    telemetry = KeptTelemetry()
    metadata: list[tuple[str, str | bytes]] = [
        ("traceparent", TRACEPARENT),
        ("tracestate", "a=b"),
        ("other-bin", b"\0"),
    ]
    span = telemetry.tracer.start_span("call", from_metadata(metadata))
    assert trace_id_of(span) == TRACE_ID
    assert span.get_span_context().trace_state.get("a") == "b"
    carried = traceparent_of(span)
    assert carried.startswith(f"00-{TRACE_ID}-")
    assert carried.endswith("-01")
    assert PARENT_ID not in carried  # the span itself is the parent of what follows
    inner = telemetry.tracer.start_span("inner", from_traceparent(carried))
    assert trace_id_of(inner) == TRACE_ID
    unsampled = telemetry.tracer.start_span("call", from_metadata([("traceparent", TRACEPARENT[:-1] + "0")]))
    assert trace_id_of(unsampled) == TRACE_ID  # for the logs
    assert traceparent_of(unsampled) == ""
    inner.end()
    unsampled.end()
    assert [span.name for span in telemetry.spans] == ["inner"]


@pytest.mark.parametrize("metadata", [None, [], [("traceparent", "nonsense")], [("traceparent", b"00")]])
def test_what_is_no_context_is_none(metadata: list[tuple[str, str | bytes]] | None) -> None:
    assert traceparent_of(KeptTelemetry(1.0).tracer.start_span("call", from_metadata(metadata))) != ""
    untold = NoOpTracer().start_span("call", from_metadata(metadata))
    assert (traceparent_of(untold), trace_id_of(untold)) == ("", "")


def test_without_an_exporter_of_its_own_a_tier_still_hands_the_context_on() -> None:
    span = NoOpTracer().start_span("call", from_metadata([("traceparent", TRACEPARENT)]))
    assert traceparent_of(span) == TRACEPARENT


def test_the_logs_carry_context_and_tenant() -> None:
    submission = Submission("r", (1, 2), SAMPLING, n=2, tenant="them", traceparent=TRACEPARENT)
    assert codec.inbox_from_bytes(codec.submission_to_bytes(submission)) == submission
    assert [branch.traceparent for branch in branches(submission)] == [TRACEPARENT] * 2
    admission = Admission(0, 1, "r", (1, 2), 0, 0, SAMPLING, TRACEPARENT)
    entry = log.PlanEntry.FromString(codec.plan_to_bytes(Plan(1, 1, admissions=(admission,))))
    assert codec.plan_from_proto(1, 1, entry.plan).admissions == (admission,)


def test_a_request_that_is_not_traced_costs_the_logs_nothing() -> None:
    entries = [
        codec.plan_to_bytes(Plan(1, 1, admissions=(Admission(0, 1, "r", (1,), 0, 0, SAMPLING, traceparent),)))
        for traceparent in ("", TRACEPARENT)
    ]
    assert len(entries[1]) - len(entries[0]) > len(TRACEPARENT)


def test_branches_are_told_by_their_number() -> None:
    assert request_attributes("r") == {"gen_ai.response.id": "r"}
    assert request_attributes("r#3") == {"gen_ai.response.id": "r", "albireo.branch": 3}
