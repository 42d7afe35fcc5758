"""What a run of ``bench.observability`` found, as tables, and which checks failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from albireo.telemetry.catalogue import METRICS
from albireo.telemetry.metric import Kind
from bench.observability.otlp_receiver import ReceivedSpan
from bench.observability.verdicts import PanelQuery, Verdict


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that one run found."""

    statuses: Counter[str]  # calls, by the status that clients received
    steps_by_rank: list[float]  # before the group died
    verdicts: list[Verdict]
    panels: list[PanelQuery]
    rules: list[dict[str, Any]]
    targets: list[dict[str, Any]]
    trace: list[ReceivedSpan]


def problems(found: Found, tiers: set[str]) -> list[str]:
    """The checks that failed, a line each; ``tiers``: service names that a trace must have spans of."""
    wrong = [
        f"{v.metric.name}: {v.value}, not in {v.low:g} to {v.high:g}" for v in found.verdicts if not v.good
    ]
    wrong += [f"{a.dashboard}, {a.panel}: no data: {a.query}" for a in found.panels if not a.good]
    wrong += [f"{rule['name']}: {rule.get('lastError')}" for rule in found.rules if rule["health"] != "ok"]
    wrong += [f"{t['scrapeUrl']}: {t['lastError']}" for t in found.targets if t["health"] != "up"]
    if not found.rules:
        wrong.append("no alert rule is loaded")
    if len(set(found.steps_by_rank)) != 1:
        wrong.append(f"ranks have run different numbers of steps: {found.steps_by_rank}")
    if {span.service for span in found.trace} != tiers:
        wrong.append("no trace has spans of all tiers")
    return wrong


def tables(found: Found) -> Iterator[Table]:
    """For the terminal."""
    yield _metrics(found.verdicts)
    yield _panels(found.panels)
    yield _rules(found.rules)
    yield _spans(found.trace)
    calls = Table("calls, as clients saw them", "", title="Load")
    for status, count in sorted(found.statuses.items()):
        calls.add_row(status, str(count))
    yield calls


def _metrics(verdicts: list[Verdict]) -> Table:
    how = {
        Kind.HISTOGRAM: "mean",
        Kind.COUNTER: "total",
        Kind.GAUGE: "largest",
        Kind.UP_DOWN: "largest sum",
    }
    table = Table("metric", "unit", "is the", "value", "plausible", "verdict", title="Metrics in Prometheus")
    for verdict in verdicts:
        metric = verdict.metric
        value = "none" if verdict.value is None else _number(verdict.value)
        limits = f"{_number(verdict.low)} to {_number(verdict.high)}"
        table.add_row(metric.name, metric.unit, how[metric.kind], value, limits, _verdict(verdict.good))
    for metric in METRICS:
        if metric.needs:
            table.add_row(metric.name, metric.unit, how[metric.kind], "", "", f"needs {metric.needs}")
    return table


def _panels(panels: list[PanelQuery]) -> Table:
    table = Table("dashboard", "panel", "query", "lines", "largest", "verdict", title="Queries of dashboards")
    for one in panels:
        empty = one.needs and not one.series
        largest = "" if one.largest is None else _number(one.largest)
        verdict = f"empty: needs {one.needs}" if empty else _verdict(one.good)
        table.add_row(one.dashboard, one.panel, one.legend, str(one.series), largest, verdict)
    return table


def _rules(rules: list[dict[str, Any]]) -> Table:
    table = Table("alert", "health", "at the end", title="Alert rules")
    for rule in rules:
        table.add_row(rule["name"], rule["health"], rule["state"])
    return table


def _spans(spans: list[ReceivedSpan]) -> Table:
    table = Table("tier", "span", "begins, ms", "takes, ms", title="A request's trace")
    origin = min((span.start for span in spans), default=0)
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        begins, takes = (span.start - origin) / 1e6, (span.end - span.start) / 1e6
        table.add_row(span.service, span.name, f"{begins:.2f}", f"{takes:.2f}")
    return table


def _verdict(good: bool) -> str:
    return "[green]good" if good else "[red]WRONG"


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e7 else f"{value:.3g}"
