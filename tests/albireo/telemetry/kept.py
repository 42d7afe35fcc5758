"""The SDK with exporters that keep everything in memory, for tests of what is exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from albireo.telemetry import Telemetry
from albireo.telemetry.histogram import Histogram
from albireo.telemetry.metric import Metric

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


class KeptTelemetry(Telemetry):
    """Keeps what it receives."""

    metered = True

    def __init__(self, ratio: float = 0.0) -> None:
        """``ratio``: of requests without a context of their own that are traced."""
        self._reader = InMemoryMetricReader()
        self._kept = InMemorySpanExporter()
        traces = TracerProvider(sampler=ParentBased(TraceIdRatioBased(ratio)), shutdown_on_exit=False)
        traces.add_span_processor(SimpleSpanProcessor(self._kept))
        metrics = MeterProvider([self._reader], shutdown_on_exit=False)
        self._histograms: dict[tuple[str, tuple[str | None, ...]], Histogram] = {}
        super().__init__(metrics.get_meter("test"), traces.get_tracer("test"))

    def folded(self, metric: Metric, attributes: Mapping[str, str] | None = None) -> Histogram:
        key = metric.name, tuple((attributes or {}).get(name) for name in metric.attributes)
        return self._histograms.setdefault(key, super().folded(metric))

    def counted(self, metric: Metric, *attributes: str | None) -> int:
        """How many values a histogram has."""
        found = self._histograms.get((metric.name, attributes))
        return sum(found.counts) if found else 0

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._kept.get_finished_spans())

    def values(self, metric: Metric) -> dict[tuple[Any, ...], float]:
        """By its attributes' values."""
        data = self._reader.get_metrics_data()
        resources = data.resource_metrics if data else []
        found: dict[tuple[Any, ...], float] = {}
        for exported in (each for r in resources for scope in r.scope_metrics for each in scope.metrics):
            if exported.name == metric.name:
                for point in exported.data.data_points:
                    key = tuple((point.attributes or {}).get(name) for name in metric.attributes)
                    assert isinstance(point, NumberDataPoint)
                    found[key] = point.value
        return found
