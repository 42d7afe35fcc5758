"""Histograms that are filled outside the SDK and join its metrics when they are collected.

A step records a dozen values. The SDK takes four to fifteen microseconds for each, depending on readers and
attributes; a :class:`Histogram` takes half a microsecond. These histograms are appended to what the SDK
collects for a reader, cumulative like everything that it exports. Readers collect in threads of their own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import export
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from albireo.telemetry.histogram import Histogram
from albireo.telemetry.metric import Metric


class Folded:
    """The folded histograms of a process, by metric and attributes."""

    def __init__(self) -> None:
        self._began = time.time_ns()
        self._scope = InstrumentationScope("albireo.folded")
        self._histograms: dict[Metric, list[tuple[Mapping[str, str], Histogram]]] = {}

    def histogram(self, metric: Metric, attributes: Mapping[str, str]) -> Histogram:
        """The metric's histogram for these attributes, exported from now on."""
        found = self._histograms.setdefault(metric, [])
        for known, histogram in found:
            if known == attributes:
                return histogram
        histogram = Histogram(metric.buckets)
        found.append((attributes, histogram))
        return histogram

    def appended(self, data: export.MetricsData) -> export.MetricsData:
        """``data``, which is of this process, and the folded histograms as they are now."""
        if not self._histograms:
            return data
        first, *others = data.resource_metrics
        metrics = [self._metric(metric, list(found)) for metric, found in list(self._histograms.items())]
        scope = export.ScopeMetrics(self._scope, metrics, "")
        return export.MetricsData([replace(first, scope_metrics=[*first.scope_metrics, scope]), *others])

    def _metric(self, metric: Metric, found: list[tuple[Mapping[str, str], Histogram]]) -> export.Metric:
        points = [self._point(attributes, histogram) for attributes, histogram in found]
        data = export.Histogram(points, export.AggregationTemporality.CUMULATIVE)
        return export.Metric(metric.name, metric.description, metric.unit, data)

    def _point(self, attributes: Mapping[str, str], histogram: Histogram) -> export.HistogramDataPoint:
        counts = list(histogram.counts)
        unknown = cast("float", None)  # OTLP leaves out what is None
        return export.HistogramDataPoint(
            attributes=dict(attributes),
            start_time_unix_nano=self._began,
            time_unix_nano=time.time_ns(),
            count=sum(counts),
            sum=histogram.sum,
            bucket_counts=counts,
            explicit_bounds=histogram.bounds,
            min=unknown,
            max=unknown,
        )


class FoldedPrometheusReader(PrometheusMetricReader):
    """Serves the SDK's metrics and the folded ones."""

    def __init__(self, folded: Folded, **options: Any) -> None:
        super().__init__(**options)
        self._folded = folded

    def _receive_metrics(self, metrics_data: export.MetricsData, *arguments: Any, **options: Any) -> None:
        super()._receive_metrics(self._folded.appended(metrics_data), *arguments, **options)


class FoldedPeriodicReader(export.PeriodicExportingMetricReader):
    """Sends the SDK's metrics and the folded ones."""

    def __init__(self, folded: Folded, exporter: export.MetricExporter) -> None:
        self._folded = folded  # first: the thread that the reader starts may collect at once
        super().__init__(exporter)

    def _receive_metrics(self, metrics_data: export.MetricsData, *arguments: Any, **options: Any) -> None:
        super()._receive_metrics(self._folded.appended(metrics_data), *arguments, **options)
