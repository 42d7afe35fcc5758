"""The check of a running stack leaves no metric out."""

from __future__ import annotations

from albireo.telemetry.catalogue import METRICS
from bench.observability.verdicts import Known, bounds


def test_every_metric_that_every_stack_has_is_judged() -> None:
    known = Known(slots=16, blocks=128, ranks=2, clients=8, calls=100, output_tokens=1000, max_queue=20)
    limits = bounds(known)
    assert set(limits) == {metric for metric in METRICS if not metric.needs}
    assert all(low <= high for low, high in limits.values())
