"""A span, metrics and a log line for each call of ``Generate``, written at its end and not per token.

The ``Inference`` service uses it, on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.attributes import rpc_attributes as rpc
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from albireo.contract.bounds import IDENTIFIER
from albireo.contract.plan import Finish
from albireo.telemetry import Telemetry, catalogue
from albireo.telemetry.context import from_metadata, trace_id_of, traceparent_of
from albireo.telemetry.histogram import Histogram
from albireo.telemetry.logs import about, bind
from albireo.telemetry.metric import Metric
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal
from gateway.streams.stream import TokenStream

logger = logging.getLogger(__name__)

METHOD = "albireo.v1.Inference/Generate"
PROVIDER = "albireo"
OTHER_MODEL = "_OTHER"
"""Attribute of calls for a model that is not served: a client's own text is no attribute of a metric."""
SERVER_FAULTS = frozenset("UNKNOWN DEADLINE_EXCEEDED UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS".split())
"""Statuses that mark a server's span as an error; the others are caused by the client."""
STATUS_OF = {Finish.CANCELLED: grpc.StatusCode.CANCELLED, Finish.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED}


class CallRecorder:
    """Records all calls of one gateway. About twenty microseconds for a request that is not traced."""

    def __init__(self, telemetry: Telemetry, *, log_level: int) -> None:
        """``log_level``: of the line that is logged at a request's end."""
        self.tracer = telemetry.tracer
        self.log_level = log_level
        self.ended = {"OK": 0}  # calls by status
        self.tokens = {"input": 0, "output": 0}
        self._telemetry = telemetry
        self._histograms: dict[tuple[str, ...], Histogram] = {}
        # Copies: an exporting thread iterates over them, while a new status may be added here.
        telemetry.observe(catalogue.REQUESTS, lambda: dict(self.ended))
        telemetry.observe(catalogue.TOKENS, lambda: dict(self.tokens))

    def histogram(self, metric: Metric, attributes: dict[str, str]) -> Histogram:
        """The metric's histogram for these attributes, of which there are few combinations."""
        key = (metric.name, *attributes.values())
        found = self._histograms.get(key)
        if found is None:
            found = self._histograms[key] = self._telemetry.folded(metric, attributes)
        return found

    def call(
        self, request: api.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any], model: str
    ) -> CallRecord:
        """The record of a call that has just begun, to be entered as a context manager.

        ``model``: the name of the one that it is for; empty where none is served under the client's name.
        """
        return CallRecord(self, request, context, model or OTHER_MODEL)


class CallRecord:
    """One call: a context manager around all of it, which writes the record when it is left."""

    def __init__(
        self,
        recorder: CallRecorder,
        request: api.GenerateRequest,
        context: grpc.aio.ServicerContext[Any, Any],
        model: str,
    ) -> None:
        self._recorder = recorder
        self._context = context
        self._began = time.monotonic()
        # Before validation a client's text may be anything, even megabytes.
        self._request_id = request.request_id if IDENTIFIER.fullmatch(request.request_id) else ""
        self._stream: TokenStream | None = None
        self._refusal: Refusal | None = None
        operation = "chat" if request.WhichOneof("input") == "chat" else "text_completion"
        self._attributes = {
            gen_ai.GEN_AI_OPERATION_NAME: operation,
            gen_ai.GEN_AI_PROVIDER_NAME: PROVIDER,
            gen_ai.GEN_AI_REQUEST_MODEL: model,
            gen_ai.GEN_AI_RESPONSE_MODEL: model,
        }
        self._span = recorder.tracer.start_span(
            f"{operation} {model}",
            from_metadata(context.invocation_metadata()),
            SpanKind.SERVER,
            self._attributes,
        )
        if self._span.is_recording():
            self._span.set_attributes(_asked(request))

    @property
    def traceparent(self) -> str:
        """W3C trace context for the other tiers; empty if the request is not traced."""
        return traceparent_of(self._span)

    def refused(self, refusal: Refusal) -> None:
        """The request was not accepted."""
        self._refusal = refusal

    def accepted(self, stream: TokenStream) -> None:
        """The request runs."""
        self._stream = stream
        self._request_id = stream.request.request_id
        bind(self._request_id, trace_id_of(self._span))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = self._status(kind).name
        seconds = time.monotonic() - self._began
        recorder, stream, attributes = self._recorder, self._stream, self._attributes
        recorder.ended[status] = recorder.ended.get(status, 0) + 1
        failed = {} if status == "OK" else {ERROR_TYPE: status}
        recorder.histogram(catalogue.REQUEST_DURATION, {**attributes, **failed}).add(seconds)
        answer = _Answer(stream, self._began, status) if stream is not None else None
        if answer is not None:
            recorder.tokens["input"] += answer.prompt_tokens
            recorder.tokens["output"] += answer.output_tokens
            if not failed and answer.first_token is not None:
                recorder.histogram(catalogue.TIME_TO_FIRST_TOKEN, attributes).add(answer.first_token)
                if answer.per_token is not None:
                    recorder.histogram(catalogue.TIME_PER_OUTPUT_TOKEN, attributes).add(answer.per_token)
        if self._span.is_recording():
            self._finish_span(self._span, status, answer)
        self._span.end()
        if logger.isEnabledFor(recorder.log_level):
            self._log(status, seconds, answer)

    def _status(self, kind: type[BaseException] | None) -> grpc.StatusCode:
        if self._refusal is not None:
            return self._refusal.code
        if self._stream is not None:
            if self._stream.final_failure is not None:
                return self._stream.final_failure.code
            outcomes = [branch.outcome for branch in self._stream.branches.values()]
            if None not in outcomes:
                for outcome in outcomes:
                    if isinstance(outcome, Finish) and outcome in STATUS_OF:
                        return STATUS_OF[outcome]
                return grpc.StatusCode.OK
        if kind is not None and issubclass(kind, (asyncio.CancelledError, GeneratorExit)):
            remaining = self._context.time_remaining()
            late = remaining is not None and remaining <= 0
            return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
        return grpc.StatusCode.UNKNOWN

    def _finish_span(self, span: Span, status: str, answer: _Answer | None) -> None:
        found: dict[str, Any] = {rpc.RPC_RESPONSE_STATUS_CODE: status}
        if self._request_id:
            found[gen_ai.GEN_AI_RESPONSE_ID] = self._request_id
        if self._stream is not None:
            found["albireo.tenant"] = self._stream.request.tenant
        if answer is not None:
            found[gen_ai.GEN_AI_USAGE_INPUT_TOKENS] = answer.prompt_tokens
            found[gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS] = answer.output_tokens
            found[gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS] = answer.cached_tokens
            found[gen_ai.GEN_AI_RESPONSE_FINISH_REASONS] = answer.finishes
            if answer.first_token is not None:
                found[gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = answer.first_token
        if status != "OK":
            found[ERROR_TYPE] = status
        span.set_attributes(found)
        if status in SERVER_FAULTS:
            span.set_status(Status(StatusCode.ERROR, status))

    def _log(self, status: str, seconds: float, answer: _Answer | None) -> None:
        fields: dict[str, Any] = {"status": status, "duration_s": round(seconds, 6)}
        if self._refusal is not None:
            fields["reason"] = self._refusal.message
        if answer is not None:
            fields |= {
                "prompt_tokens": answer.prompt_tokens,
                "cached_tokens": answer.cached_tokens,
                "output_tokens": answer.output_tokens,
                "finish": answer.finishes,
            }
            if answer.first_token is not None:
                fields["ttft_s"] = round(answer.first_token, 6)
        logger.log(
            self._recorder.log_level,
            "request %s: %s after %.3f s",
            self._request_id or "without an id",
            status,
            seconds,
            extra=about(self._request_id, trace_id_of(self._span), **fields),
        )


class _Answer:
    """The totals of a stream over all its branches."""

    def __init__(self, stream: TokenStream, began: float, status: str) -> None:
        branches = list(stream.branches.values())
        self.prompt_tokens = len(stream.request.prompt)
        self.cached_tokens = branches[0].cached
        self.output_tokens = sum(branch.sent for branch in branches)
        # A branch without a known end ended as the call did.
        rest = next((finish for finish, code in STATUS_OF.items() if code.name == status), Finish.ERROR)
        ends = [branch.outcome if isinstance(branch.outcome, Finish) else rest for branch in branches]
        self.finishes = [end.name.lower() for end in ends]
        firsts = [branch.first_at for branch in branches if branch.first_at]
        self.first_token = min(firsts) - began if firsts else None
        longer = [branch for branch in branches if branch.sent > 1]
        steps = sum(branch.sent - 1 for branch in longer)
        self.per_token = sum(branch.last_at - branch.first_at for branch in longer) / steps if steps else None


def _asked(request: api.GenerateRequest) -> dict[str, Any]:
    """The span's attributes that follow from the request. The client's own text is left out, except a valid
    tenant."""
    options = request.sampling
    found: dict[str, Any] = {
        rpc.RPC_SYSTEM_NAME: "grpc",
        rpc.RPC_METHOD: METHOD,
        gen_ai.GEN_AI_REQUEST_STREAM: True,
    }
    for name in ("max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty"):
        if options.HasField(name):
            found[f"gen_ai.request.{name}"] = getattr(options, name)
    if options.HasField("top_k"):
        found[gen_ai.GEN_AI_REQUEST_TOP_K] = float(options.top_k)
    if options.HasField("seed"):  # attributes are signed 64-bit integers
        found[gen_ai.GEN_AI_REQUEST_SEED] = options.seed - (options.seed >> 63 << 64)
    if options.n > 1:
        found[gen_ai.GEN_AI_REQUEST_CHOICE_COUNT] = options.n
    return found
