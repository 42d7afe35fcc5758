"""PromQL over the catalogue's metrics. No name of a metric is written anywhere else, so none can go stale."""

from __future__ import annotations

from albireo.telemetry.catalogue import Kind, Metric

MODEL, GROUP = "albireo_model", "albireo_group"
SELECTED = f'{MODEL}=~"$model",{GROUP}=~"$group"'
"""What the dashboards' variables choose."""
WINDOW = "$__rate_interval"
RANGE = "$__range"


def of_model(metric: Metric) -> str:
    """The series of what the variable ``model`` chooses, whatever their group."""
    return f'{metric.prometheus}{{{MODEL}=~"$model"}}'


def now(metric: Metric, *by: str) -> str:
    """What stands at the moment, over all processes."""
    return _sum(_series(metric), by)


def largest(metric: Metric, *by: str) -> str:
    """Where a sum over processes means nothing."""
    return _aggregated("max", _series(metric), by)


def rate(metric: Metric, *by: str, where: str = "") -> str:
    """Growth a second: of a histogram's values if it is one."""
    return _sum(f"rate({_series(metric, _counted(metric), where)}[{WINDOW}])", by)


def rate_of_sum(metric: Metric, *by: str) -> str:
    """Growth a second of the sum of a histogram's values."""
    return _sum(f"rate({_series(metric, '_sum')}[{WINDOW}])", by)


def rise(metric: Metric, *by: str) -> str:
    """How much a number that outlives its processes grew over the time that is shown; 0 is none yet."""
    return f"increase(({_aggregated('max', f'{_series(metric)} > 0', by)})[{RANGE}:])"


def mean(metric: Metric, *by: str, where: str = "", window: str = WINDOW) -> str:
    """Of a histogram."""
    total, count = (
        _sum(f"rate({_series(metric, suffix, where)}[{window}])", by) for suffix in ("_sum", "_count")
    )
    return f"{total} / {count}"


def quantile(share: float, metric: Metric, *by: str, where: str = "") -> str:
    """Of a histogram, as exact as its buckets are."""
    buckets = f"rate({_series(metric, '_bucket', where)}[{WINDOW}])"
    return f"histogram_quantile({share:g}, {_sum(buckets, ('le', *by))})"


def buckets(metric: Metric) -> str:
    """For a heatmap."""
    return _sum(f"increase({_series(metric, '_bucket')}[{WINDOW}])", ("le",))


def _counted(metric: Metric) -> str:
    return "_count" if metric.kind is Kind.HISTOGRAM else ""


def _series(metric: Metric, suffix: str = "", where: str = "") -> str:
    return f"{metric.prometheus}{suffix}{{{SELECTED}{',' if where else ''}{where}}}"


def _sum(series: str, by: tuple[str, ...]) -> str:
    return _aggregated("sum", series, by)


def _aggregated(how: str, series: str, by: tuple[str, ...]) -> str:
    return f"{how} by ({', '.join(by)}) ({series})" if by else f"{how}({series})"
