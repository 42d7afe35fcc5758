"""What a tier tells its metrics and spans to. Without the SDK, until :mod:`albireo.telemetry.providers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, NoOpMeter, Observation
from opentelemetry.trace import NoOpTracer, Tracer

from albireo.telemetry.catalogue import Kind, Metric
from albireo.telemetry.histogram import Histogram

Reading = float | Mapping[str, float] | None
"""A value now; values by the metric's one attribute; None: not known now."""


class Telemetry:
    """Makes the instruments of one process. This one leads nowhere; see :func:`albireo.telemetry.start`."""

    metered = False
    """Whether anybody reads metrics: where nobody does, what is costly to measure need not be."""

    def __init__(self, meter: Meter | None = None, tracer: Tracer | None = None) -> None:
        self._meter = meter or NoOpMeter("albireo")
        self.tracer = tracer or NoOpTracer()

    def folded(self, metric: Metric, attributes: Mapping[str, str] | None = None) -> Histogram:
        """A histogram, exported from now on. About half a microsecond a value; filled by one thread."""
        return Histogram(metric.buckets)

    def observe(self, metric: Metric, read: Callable[[], Reading]) -> None:
        """``read`` is called at each export, by a thread of its own. A counter must only grow."""

        def callback(options: CallbackOptions) -> Iterable[Observation]:
            found = read()
            if isinstance(found, Mapping):
                [attribute] = metric.attributes
                return [Observation(value, {attribute: name}) for name, value in found.items()]
            return [] if found is None else [Observation(found)]

        create = {
            Kind.COUNTER: self._meter.create_observable_counter,
            Kind.UP_DOWN: self._meter.create_observable_up_down_counter,
            Kind.GAUGE: self._meter.create_observable_gauge,
        }[metric.kind]
        create(metric.name, [callback], metric.unit, metric.description)

    def shutdown(self) -> None:
        """Sends what is left, for a few seconds at most."""


OFF = Telemetry()
"""Nobody reads anything."""
