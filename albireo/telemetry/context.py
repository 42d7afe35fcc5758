"""W3C trace context, to and from gRPC metadata and the entries of the logs. Used by all tiers."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.context import Context
from opentelemetry.semconv._incubating.attributes.gen_ai_attributes import GEN_AI_RESPONSE_ID
from opentelemetry.trace import Span, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from albireo.contract.plan import public_name

_PROPAGATOR = TraceContextTextMapPropagator()
_FIELDS = frozenset(_PROPAGATOR.fields)


def from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> Context:
    """The client's context; an empty one where it sent none, or none that is valid."""
    carrier = {key: value for key, value in metadata or () if key in _FIELDS and isinstance(value, str)}
    return _PROPAGATOR.extract(carrier, Context()) if carrier else Context()


def traceparent_of(span: Span) -> str:
    """The string by which other tiers join the span's trace; empty where the trace is not recorded."""
    if not span.get_span_context().trace_flags.sampled:
        return ""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(span, Context()))
    return carrier.get("traceparent", "")


def from_traceparent(traceparent: str) -> Context:
    """The context that ``traceparent_of`` gave the string of."""
    return _PROPAGATOR.extract({"traceparent": traceparent}, Context())


def trace_id_of(span: Span) -> str:
    """32 hexadecimal digits; empty where there is no trace."""
    context = span.get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else ""


def request_attributes(name: str) -> dict[str, str | int]:
    """Attributes of a span that is about the request, or the branch, of that name."""
    request_id, _, branch = public_name(name).partition("#")
    return {GEN_AI_RESPONSE_ID: request_id, **({"albireo.branch": int(branch)} if branch.isdecimal() else {})}
