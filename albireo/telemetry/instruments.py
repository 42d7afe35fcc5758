"""The instruments of a process without the OpenTelemetry SDK, which ``providers`` adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, NoOpMeter, Observation
from opentelemetry.trace import NoOpTracer, Tracer

from albireo.telemetry.histogram import Histogram
from albireo.telemetry.metric import Kind, Metric

Pair = tuple[str, str]
Three = tuple[str, str, str]
Reading = float | Mapping[str, float] | Mapping[Pair, float] | Mapping[Three, float] | None
"""The present value; values by the metric's one, two or three attributes; None: not known at present."""


class Telemetry:
    """Makes the instruments of one process. These record nothing; see :func:`albireo.telemetry.start`."""

    metered = False
    """Whether metrics are exported: where they are not, costly measurements can be left out."""

    def __init__(self, meter: Meter | None = None, tracer: Tracer | None = None) -> None:
        self._meter = meter or NoOpMeter("albireo")
        self.tracer = tracer or NoOpTracer()

    def folded(self, metric: Metric, attributes: Mapping[str, str] | None = None) -> Histogram:
        """A histogram, exported from now on. About half a microsecond a value; filled by one thread."""
        return Histogram(metric.buckets)

    def observe(self, metric: Metric, read: Callable[[], Reading]) -> None:
        """``read`` is called at each export, from the exporter's thread. A counter must only grow."""

        def callback(options: CallbackOptions) -> Iterable[Observation]:
            found = read()
            if isinstance(found, Mapping):
                return [Observation(value, _attributes(metric, names)) for names, value in found.items()]
            return [] if found is None else [Observation(found)]

        create = {
            Kind.COUNTER: self._meter.create_observable_counter,
            Kind.UP_DOWN: self._meter.create_observable_up_down_counter,
            Kind.GAUGE: self._meter.create_observable_gauge,
        }[metric.kind]
        create(metric.name, [callback], metric.unit, metric.description)

    def shutdown(self) -> None:
        """Exports what is pending, for a few seconds at most."""


def _attributes(metric: Metric, names: str | tuple[str, ...]) -> dict[str, str]:
    values = (names,) if isinstance(names, str) else names
    return dict(zip(metric.attributes, values, strict=True))


OFF = Telemetry()
"""Telemetry that records nothing."""
