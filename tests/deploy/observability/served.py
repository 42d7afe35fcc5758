"""Which names PromQL may hold, by the catalogue."""

from __future__ import annotations

import re

from albireo.telemetry.attributes import ATTRIBUTES, RESOURCE
from albireo.telemetry.catalogue import METRICS
from albireo.telemetry.metric import Kind, Metric

OWN = re.compile(r"\b(?:albireo|gen_ai)_[a-z0-9_]+")
LABELS = {name.replace(".", "_") for name in (*ATTRIBUTES, *RESOURCE)}
PROMETHEUS_LABELS = {"le", "job", "instance", "alertstate"}


def series_names(metric: Metric) -> set[str]:
    """As its Prometheus endpoint serves them."""
    if metric.kind is Kind.HISTOGRAM:
        return {f"{metric.prometheus}_{part}" for part in ("bucket", "sum", "count")}
    return {metric.prometheus}


def metric_names(query: str) -> set[str]:
    """Names of ours in a query that are not labels."""
    return set(OWN.findall(query)) - LABELS


def unknown_labels(query: str) -> set[str]:
    """Labels, by which a query selects or groups, that none of its metrics has."""
    shared = {name.replace(".", "_") for name in RESOURCE} | PROMETHEUS_LABELS
    names = metric_names(query)
    own = {
        name.replace(".", "_")
        for metric in METRICS
        if series_names(metric) & names
        for name in metric.attributes
    }
    used = set(re.findall(r"([a-z_]+)\s*(?:=~|!=|!~|=)\s*\"", query))
    for group in re.findall(r"\bby \(([^)]*)\)", query):
        used |= {label.strip() for label in group.split(",")}
    return used - shared - own
