"""PromQL queries over metrics of the catalogue. Dashboards take names of metrics from here only."""

from __future__ import annotations

from albireo.telemetry.metric import Kind, Metric, Tier

MODEL, GROUP, KV_TIER = "albireo_model", "albireo_group", "kv_tier"
WINDOW = "$__rate_interval"
RANGE = "$__range"


def of_model(metric: Metric) -> str:
    """Series of the selected model, of all groups."""
    return f'{metric.prometheus}{{{MODEL}=~"$model"}}'


def now(metric: Metric, *by: str) -> str:
    """Present value, summed over all processes."""
    return _sum(_series(metric), by)


def largest(metric: Metric, *by: str) -> str:
    """Largest present value of all processes, for metrics that must not be summed."""
    return _aggregated("max", _series(metric), by)


def rate(metric: Metric, *by: str, where: str = "") -> str:
    """Increase per second; of a histogram: of the number of its values."""
    return _sum(f"rate({_series(metric, _counted(metric), where)}[{WINDOW}])", by)


def rate_of_sum(metric: Metric, *by: str) -> str:
    """Increase per second of the sum of a histogram's values."""
    return _sum(f"rate({_series(metric, '_sum')}[{WINDOW}])", by)


def rise(metric: Metric, *by: str) -> str:
    """Increase, over the time shown, of a number that is kept when processes restart; 0 counts as not set."""
    return f"increase(({_aggregated('max', f'{_series(metric)} > 0', by)})[{RANGE}:])"


def mean(metric: Metric, *by: str, where: str = "", window: str = WINDOW) -> str:
    """Mean of a histogram's values."""
    total, count = (
        _sum(f"rate({_series(metric, suffix, where)}[{window}])", by) for suffix in ("_sum", "_count")
    )
    return f"{total} / {count}"


def quantile(share: float, metric: Metric, *by: str, where: str = "") -> str:
    """Quantile of a histogram's values, as exact as its buckets."""
    buckets = f"rate({_series(metric, '_bucket', where)}[{WINDOW}])"
    return f"histogram_quantile({share:g}, {_sum(buckets, ('le', *by))})"


def buckets(metric: Metric) -> str:
    """Increase of each bucket of a histogram, for a heatmap."""
    return _sum(f"increase({_series(metric, '_bucket')}[{WINDOW}])", ("le",))


def _counted(metric: Metric) -> str:
    return "_count" if metric.kind is Kind.HISTOGRAM else ""


def _series(metric: Metric, suffix: str = "", where: str = "") -> str:
    """Of what the dashboards' variables select: a group only where the metric is of one."""
    selected = f'{MODEL}=~"$model"'
    if metric.tier is Tier.WORKER or "albireo.group" in metric.attributes:
        selected += f',{GROUP}=~"$group"'
    return f"{metric.prometheus}{suffix}{{{selected}{',' if where else ''}{where}}}"


def _sum(series: str, by: tuple[str, ...]) -> str:
    return _aggregated("sum", series, by)


def _aggregated(how: str, series: str, by: tuple[str, ...]) -> str:
    return f"{how} by ({', '.join(by)}) ({series})" if by else f"{how}({series})"
