"""The catalogue of metrics as a page of the documentation.

python -m albireo.telemetry.table > docs/metrics.md
"""

from __future__ import annotations

from albireo.telemetry.attributes import ATTRIBUTES, RESOURCE
from albireo.telemetry.catalogue import METRICS
from albireo.telemetry.metric import Metric, Tier


def markdown() -> str:
    """``docs/metrics.md``."""
    lines = [
        "# Metrics",
        "",
        "<!-- Generated: python -m albireo.telemetry.table > docs/metrics.md -->",
        "",
        "Exported over OTLP to `ALBIREO_OTLP_ENDPOINT` under the first name, and on each service's",
        "`ALBIREO_<SERVICE>_METRICS_PORT` at `/metrics` under the Prometheus name (a histogram:",
        "followed by `_bucket`, `_sum` or `_count`). Counters grow for as long as their process runs.",
    ]
    for tier in Tier:
        lines += [
            "",
            f"## {tier.value.capitalize()}",
            "",
            "| name | Prometheus | kind | unit | attributes | description |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_row(metric) for metric in METRICS if metric.tier is tier]
    lines += ["", "## Attributes", "", "| attribute | values |", "|---|---|"]
    lines += [f"| `{name}` | {values} |" for name, values in ATTRIBUTES.items()]
    lines += [
        "",
        "Every metric also has, as labels in Prometheus and as resource attributes in OTLP:",
        "",
    ]
    lines += ["| attribute | values |", "|---|---|"]
    lines += [f"| `{name}` | {values} |" for name, values in RESOURCE.items()]
    lines += ["", "In Prometheus the dots of names are underscores.", "", "## Buckets", ""]
    names: dict[tuple[float, ...], list[str]] = {}
    for metric in METRICS:
        if metric.buckets:
            names.setdefault(metric.buckets, []).append(f"`{metric.name}`")
    for buckets, metrics in names.items():
        lines.append(f"- {', '.join(metrics)}: {', '.join(f'{bound:.4g}' for bound in buckets)}")
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    only = f" Only where there is {metric.needs}." if metric.needs else ""
    attributes = ", ".join(f"`{name}`" for name in metric.attributes)
    return (
        f"| `{metric.name}` | `{metric.prometheus}` | {metric.kind.value} | `{metric.unit}` | {attributes} "
        f"| {metric.description}{only} |"
    )


if __name__ == "__main__":
    print(markdown(), end="")
