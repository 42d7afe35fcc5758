"""What a metric is: kind, unit, tier, attributes. ``catalogue`` declares all of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

GPU, KV_TIER = "a GPU", "a KV tier"
"""What some metrics need."""

PROMETHEUS_UNITS = {"s": "seconds", "By": "bytes", "W": "watts", "J": "joules"}


class Kind(Enum):
    """How values of a metric add up; its value is the word in ``docs/metrics.md``."""

    COUNTER = "counter"  # only grows, for as long as the process lives
    UP_DOWN = "up-down counter"  # a current amount; sums over processes make sense
    GAUGE = "gauge"  # a current value; sums do not
    HISTOGRAM = "histogram"


class Tier(Enum):
    """The process that exports a metric."""

    GATEWAY = "gateway"
    SCHEDULER = "scheduler"
    WORKER = "worker (each rank)"
    ALL = "every tier"


@dataclass(frozen=True, slots=True)
class Metric:
    """The declaration of one metric."""

    name: str
    kind: Kind
    unit: str  # UCUM: s, By, {request}, ...
    tier: Tier
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  # upper bounds, of a histogram
    needs: str = ""  # exported only where there is one: GPU, KV_TIER

    @property
    def prometheus(self) -> str:
        """Its name on the Prometheus endpoint, that of the family for a histogram."""
        name = self.name.replace(".", "_")
        unit = PROMETHEUS_UNITS.get(self.unit)
        if unit is not None and not name.endswith(f"_{unit}"):
            name += f"_{unit}"
        return f"{name}_total" if self.kind is Kind.COUNTER else name


class Metrics(list[Metric]):
    """Some metrics, in the order of their declaration."""

    def add(
        self,
        name: str,
        kind: Kind,
        unit: str,
        tier: Tier,
        description: str,
        *attributes: str,
        buckets: tuple[float, ...] = (),
        needs: str = "",
    ) -> Metric:
        """Declares one more."""
        metric = Metric(name, kind, unit, tier, description, attributes, buckets, needs)
        self.append(metric)
        return metric
