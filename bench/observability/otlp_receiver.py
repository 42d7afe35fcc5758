"""A collector that keeps what it receives: OTLP over gRPC, for measurements and tests.

Services call it from gRPC's threads; the measurement reads it from its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

KEPT_REQUESTS = 10_000


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span as it was received, ids in hexadecimal."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int  # ns of the Unix clock
    end: int
    attributes: dict[str, Any]
    error: bool


class OtlpReceiver:
    """A context manager: listens on a free port of loopback until it is left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: deque[trace_service.ExportTraceServiceRequest] = deque(maxlen=KEPT_REQUESTS)
        self._metrics: dict[tuple[str, str, str], Metric] = {}
        self._server = grpc.server(ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self), self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(grace=1).wait(5)

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All spans of the last ``KEPT_REQUESTS`` requests."""
        with self._lock:
            requests = list(self._requests)
        # Parsed here and not on arrival, which would take CPU time from the services that are measured.
        return [span for request in requests for span in _spans(request)]

    @property
    def metrics(self) -> dict[tuple[str, str, str], Metric]:
        """Each metric as it was received last, by service, instance of the service, and name."""
        with self._lock:
            return dict(self._metrics)

    def take_spans(self, request: trace_service.ExportTraceServiceRequest) -> None:
        with self._lock:
            self._requests.append(request)

    def take_metrics(self, request: metrics_service.ExportMetricsServiceRequest) -> None:
        with self._lock:
            for resource in request.resource_metrics:
                process = attributes_of(resource.resource.attributes)
                for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                    key = (process["service.name"], process["service.instance.id"], metric.name)
                    self._metrics[key] = metric


def _spans(request: trace_service.ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for resource in request.resource_spans:
        service = attributes_of(resource.resource.attributes)["service.name"]
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            yield ReceivedSpan(
                service=service,
                name=span.name,
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_id=span.parent_span_id.hex(),
                start=span.start_time_unix_nano,
                end=span.end_time_unix_nano,
                attributes=attributes_of(span.attributes),
                error=span.status.code == span.status.STATUS_CODE_ERROR,
            )


def attributes_of(pairs: Any) -> dict[str, Any]:
    """OTLP's attributes, a repeated ``KeyValue``, as plain data."""
    found: dict[str, Any] = {}
    pair: KeyValue
    for pair in pairs:
        found[pair.key] = _plain(pair.value)
    return found


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(
        self, request: trace_service.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service.ExportTraceServiceResponse:
        self._receiver.take_spans(request)
        return trace_service.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(
        self, request: metrics_service.ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> metrics_service.ExportMetricsServiceResponse:
        self._receiver.take_metrics(request)
        return metrics_service.ExportMetricsServiceResponse()
