"""The OpenTelemetry SDK behind the instruments: exports metrics and spans in threads of its own.

The SDK's own variables hold for what is not set here (``OTEL_METRIC_EXPORT_INTERVAL``, ``OTEL_BSP_...``,
``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_EXPORTER_OTLP_HEADERS``, ...).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from prometheus_client import CollectorRegistry, start_http_server

from albireo import __version__
from albireo.runtime.process import switch_quickly
from albireo.runtime.settings import ServiceSettings
from albireo.telemetry.attributes import RESOURCE
from albireo.telemetry.folded import Folded, FoldedPeriodicReader, FoldedPrometheusReader
from albireo.telemetry.histogram import Histogram
from albireo.telemetry.instruments import Telemetry
from albireo.telemetry.metric import Metric

logger = logging.getLogger(__name__)

EXPORT_SECONDS = 5
"""How long one export may take, retries included."""
SHUTDOWN_SECONDS = 3.0
ATTRIBUTE_LENGTH = 256
"""Most characters of a span's attribute: a collector refuses a whole batch above its message size."""


class Exported(Telemetry):
    """Exports metrics to a Prometheus endpoint and a collector, spans to the collector; each if it is set."""

    metered = True

    def __init__(
        self, settings: ServiceSettings, *, host: str, metrics_port: int | None, attributes: dict[str, str]
    ) -> None:
        """Raises OSError where the port of the metrics cannot be bound."""
        switch_quickly()  # exports and scrapes run in threads of the same process
        resource = Resource.create(
            {
                "service.version": __version__,
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
                "albireo.model": settings.model_name,
                **attributes,
            }
        )
        self.metrics_port: int | None = None
        self._folded = Folded()
        self._closing: list[Callable[[], object]] = []
        readers: list[MetricReader] = []
        if metrics_port is not None:
            readers.append(self._prometheus(host, metrics_port))
        endpoint = settings.otlp_endpoint
        traces = None
        if endpoint:
            readers.append(
                FoldedPeriodicReader(
                    self._folded, OTLPMetricExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
                )
            )
            traces = TracerProvider(
                sampler=ParentBased(TraceIdRatioBased(settings.trace_sample_ratio)),
                resource=resource,
                span_limits=SpanLimits(max_attribute_length=ATTRIBUTE_LENGTH),
                shutdown_on_exit=False,
            )
            traces.add_span_processor(
                BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS))
            )
            self._closing.append(traces.shutdown)
        # Exemplars would look for a current span at each value; there never is one.
        metrics = MeterProvider(
            readers, resource, shutdown_on_exit=False, exemplar_filter=AlwaysOffExemplarFilter()
        )
        self._closing.append(lambda: metrics.shutdown(SHUTDOWN_SECONDS * 1000))
        super().__init__(
            metrics.get_meter("albireo", __version__),
            traces.get_tracer("albireo", __version__) if traces else None,
        )

    def _prometheus(self, host: str, port: int) -> MetricReader:
        registry = CollectorRegistry()
        reader = FoldedPrometheusReader(
            self._folded,
            registry=registry,
            scope_info_enabled=False,
            resource_attribute_filter=RESOURCE.__contains__,
        )
        server, thread = start_http_server(port, host, registry)

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._closing.append(close)
        self.metrics_port = server.server_port
        logger.info("metrics on http://%s:%d/metrics", host, self.metrics_port)
        return reader

    def folded(self, metric: Metric, attributes: Mapping[str, str] | None = None) -> Histogram:
        return self._folded.histogram(metric, attributes or {})

    def shutdown(self) -> None:
        # Each waits for its collector: in parallel, and in threads that end with the process.
        threads = [threading.Thread(target=close, daemon=True) for close in self._closing]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SHUTDOWN_SECONDS)
