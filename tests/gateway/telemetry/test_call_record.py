"""Every call has a span, metrics and a log line, however it ends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from albireo.contract.plan import Finish, Submission
from albireo.runtime.process import LIVE
from albireo.telemetry import catalogue
from albireo.telemetry.logs import JsonFormatter
from albireo.v1 import control_pb2
from albireo.v1 import inference_pb2 as api
from tests.albireo.telemetry.kept import PARENT_ID, TRACE_ID, TRACEPARENT, KeptTelemetry
from tests.gateway.conftest import Backend, Served, code_of, eventually, request, rest_of, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

METADATA = (("traceparent", TRACEPARENT),)
GENAI = ("text_completion", "albireo", "tiny", "tiny")


class Observed:
    """A gateway that serves, and what it recorded."""

    def __init__(self, served: Served, recorded: KeptTelemetry) -> None:
        self.served = served
        self.recorded = recorded

    def statuses(self) -> dict[str, float]:
        found = self.recorded.values(catalogue.REQUESTS)
        return {status: count for (status,), count in found.items() if count}

    async def span(self) -> ReadableSpan:
        await eventually(lambda: bool(self.recorded.spans))
        [span] = self.recorded.spans
        return span


@pytest_asyncio.fixture(loop_scope="session")
async def observed(backend: Backend) -> AsyncIterator[Observed]:
    recorded = KeptTelemetry()
    async with serving(backend, telemetry=recorded, log_format="json") as served:
        yield Observed(served, recorded)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_finished_call(observed: Observed, caplog: pytest.LogCaptureFixture) -> None:
    served = observed.served
    message = request("Hi", temperature=0.5, top_k=5, max_tokens=9, stop=["zz"])
    message.tenant = "them"
    with caplog.at_level(logging.INFO, "gateway.telemetry.call_record"):
        call = served.inference.Generate(message, timeout=30, metadata=METADATA)
        await call.read()
        [submission] = served.backend.inbox()
        assert isinstance(submission, Submission)
        assert submission.tenant == "them"
        assert submission.traceparent.startswith(f"00-{TRACE_ID}-")
        served.backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
        await call.read()
        served.backend.result([(1, 51, Finish.LENGTH)])
        await rest_of(call)
        span = await observed.span()
    assert span.name == "text_completion tiny"
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT_ID
    assert f"{span.context.span_id:016x}" in submission.traceparent if span.context else False
    found = attributes(span)
    assert found["gen_ai.request.temperature"] == 0.5
    assert found["gen_ai.request.top_k"] == 5.0
    assert found["gen_ai.request.max_tokens"] == 9
    assert "zz" not in str(found)  # what clients write stays out
    assert found["gen_ai.response.finish_reasons"] == ("length",)
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (2, 2)
    assert found["albireo.tenant"] == "them"
    assert "gen_ai.request.seed" not in found  # the client left it to us
    assert observed.statuses() == {"OK": 1}
    recorded = observed.recorded
    assert recorded.counted(catalogue.REQUEST_DURATION, *GENAI, None) == 1
    assert recorded.counted(catalogue.TIME_TO_FIRST_TOKEN, *GENAI) == 1
    assert recorded.counted(catalogue.TIME_PER_OUTPUT_TOKEN, *GENAI) == 1
    assert recorded.values(catalogue.TOKENS) == {("input",): 2, ("output",): 2}
    assert recorded.counted(catalogue.RESULTS_LAG) == 2
    assert recorded.values(catalogue.STREAMS) == {("tiny",): 0}
    [record] = [record for record in caplog.records if record.name == "gateway.telemetry.call_record"]
    line = json.loads(JsonFormatter("gateway").format(record))
    assert (line["request_id"], line["trace_id"], line["status"]) == ("r", TRACE_ID, "OK")
    assert (line["prompt_tokens"], line["output_tokens"], line["finish"]) == (2, 2, ["length"])


async def test_a_refusal(observed: Observed) -> None:
    call = observed.served.inference.Generate(request(max_tokens=0), timeout=30, metadata=METADATA)
    assert await code_of(call) is grpc.StatusCode.INVALID_ARGUMENT
    span = await observed.span()
    assert attributes(span)["error.type"] == "INVALID_ARGUMENT"
    assert span.status.status_code is StatusCode.UNSET  # the client's fault
    assert observed.statuses() == {"INVALID_ARGUMENT": 1}
    assert observed.recorded.counted(catalogue.REQUEST_DURATION, *GENAI, "INVALID_ARGUMENT") == 1
    assert observed.recorded.counted(catalogue.TIME_TO_FIRST_TOKEN, *GENAI) == 0
    assert observed.recorded.values(catalogue.TOKENS) == {("input",): 0, ("output",): 0}


LONG = "x" * 1_000_000


@pytest.mark.parametrize(
    "message",
    [
        api.GenerateRequest(text="Hi", request_id=LONG),
        api.GenerateRequest(text="Hi", tenant=LONG),
        api.GenerateRequest(text="Hi", model=LONG),
        api.GenerateRequest(text="Hi", sampling=api.SamplingOptions(stop=[LONG] * 3)),
    ],
    ids=["request_id", "tenant", "model", "stop"],
)
async def test_a_clients_long_text_is_in_no_status_no_span_and_no_log_line(
    observed: Observed, message: api.GenerateRequest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "gateway.telemetry.call_record"):
        call = observed.served.inference.Generate(message, timeout=30, metadata=METADATA)
        assert await code_of(call) in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
        span = await observed.span()
    assert len(await call.details() or "") < 300
    assert len(str(attributes(span))) < 2000
    [record] = [record for record in caplog.records if record.name == "gateway.telemetry.call_record"]
    assert len(JsonFormatter("gateway").format(record)) < 2000


async def test_a_client_that_leaves(observed: Observed) -> None:
    call = observed.served.inference.Generate(request(), timeout=30, metadata=METADATA)
    await call.read()
    observed.served.backend.result([(1, 50, Finish.NONE)], admitted={"r": 1})
    await call.read()
    call.cancel()
    span = await observed.span()
    assert attributes(span)["error.type"] == "CANCELLED"
    assert attributes(span)["gen_ai.response.finish_reasons"] == ("cancelled",)
    assert observed.statuses() == {"CANCELLED": 1}
    assert observed.recorded.values(catalogue.TOKENS)[("output",)] == 1
    assert observed.recorded.counted(catalogue.TIME_TO_FIRST_TOKEN, *GENAI) == 0  # of those that succeed


async def test_a_deadline_on_either_side(observed: Observed) -> None:
    call = observed.served.inference.Generate(request(), timeout=0.3, metadata=METADATA)
    assert await code_of(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    span = await observed.span()
    assert attributes(span)["error.type"] == "DEADLINE_EXCEEDED"
    assert span.status.status_code is StatusCode.ERROR
    call = observed.served.inference.Generate(request(request_id="s"), timeout=30)
    await call.read()
    observed.served.backend.result(ended={"s": Finish.DEADLINE})
    await rest_of(call)
    await eventually(lambda: observed.statuses() == {"DEADLINE_EXCEEDED": 2})


async def test_an_epochs_end(observed: Observed) -> None:
    call = observed.served.inference.Generate(request(), timeout=30, metadata=METADATA)
    await call.read()
    observed.served.backend.open_epoch()
    await rest_of(call)
    span = await observed.span()
    assert attributes(span)["error.type"] == "UNAVAILABLE"
    assert span.status.status_code is StatusCode.ERROR
    assert observed.statuses() == {"UNAVAILABLE": 1}


async def test_a_call_with_a_failed_branch_counts_as_failed(observed: Observed) -> None:
    call = observed.served.inference.Generate(request(n=2), timeout=30, metadata=METADATA)
    await call.read()
    rows = [(1, 0, Finish.ERROR), (2, 50, Finish.STOP)]
    observed.served.backend.result(rows, admitted={"r#0": 1, "r#1": 2})
    await rest_of(call)
    span = await observed.span()
    assert attributes(span)["error.type"] == "INTERNAL"
    assert attributes(span)["gen_ai.response.finish_reasons"] == ("error", "stop")


async def test_a_request_that_is_not_traced_has_no_trace_context(observed: Observed) -> None:
    call = observed.served.inference.Generate(request(), timeout=30)
    await call.read()
    [submission] = observed.served.backend.inbox()
    assert isinstance(submission, Submission)
    assert submission.traceparent == ""
    assert submission.tenant == "default"
    call.cancel()
    await eventually(lambda: observed.statuses() == {"CANCELLED": 1})
    assert observed.recorded.spans == []


async def test_a_full_gateway_counts_its_refusals_and_reports_its_health(
    backend: Backend,
) -> None:
    recorded = KeptTelemetry()
    async with serving(backend, telemetry=recorded, max_streams=2) as served:
        observed = Observed(served, recorded)
        stream = served.inference.Generate(request(), timeout=30)
        await stream.read()
        watch = served.control.WatchSteps(control_pb2.WatchStepsRequest(), timeout=30)
        reading = asyncio.ensure_future(watch.read())
        while not reading.done():
            backend.result()
            await asyncio.sleep(0.02)
        late = served.inference.Generate(request(request_id="s"), timeout=30)
        assert await code_of(late) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "max_streams" in (await late.details() or "")
        assert dict((await late.trailing_metadata()) or ())["grpc-retry-pushback-ms"] == "250"
        another = served.control.WatchSteps(control_pb2.WatchStepsRequest(), timeout=30)
        assert await code_of(another) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert observed.statuses() == {"RESOURCE_EXHAUSTED": 1}
        alive = health_pb2_grpc.HealthStub(served.channel).Check(health_pb2.HealthCheckRequest(service=LIVE))
        assert (await alive).status == health_pb2.HealthCheckResponse.SERVING
        assert (await served.control.GetServerInfo(control_pb2.GetServerInfoRequest())).models == ["tiny"]
        for call in (stream, watch):  # each makes room for another
            call.cancel()
        async with asyncio.timeout(10):
            for name in ("t", "u"):
                while not await accepted(served, name):
                    await asyncio.sleep(0.01)


async def accepted(served: Served, name: str) -> bool:
    """Whether a new stream is admitted."""
    call = served.inference.Generate(request(request_id=name), timeout=30)
    try:
        return (await call.read()).HasField("accepted")
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
