"""The plausible range of every metric after the load, and its measured value.

Called by ``bench.observability.observe`` once the load has ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from albireo.telemetry import catalogue as metrics
from albireo.telemetry.catalogue import METRICS
from albireo.telemetry.metric import Kind, Metric
from bench.observability.prometheus import Prometheus


@dataclass(frozen=True, slots=True)
class Known:
    """What the clients, the settings and the gateway's API say, to compare metrics with."""

    slots: int
    blocks: int  # of the group
    ranks: int
    clients: int  # those with a trace for the picture included
    calls: int
    output_tokens: int
    max_queue: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """One metric's value, see :func:`measured`, and its range. ``value``: None where Prometheus has none."""

    metric: Metric
    value: float | None
    low: float
    high: float

    @property
    def good(self) -> bool:
        return self.value is not None and self.low <= self.value <= self.high


MANY = 1e7


def bounds(known: Known) -> Mapping[Metric, tuple[float, float]]:
    """Smallest and largest plausible value of what :func:`measured` asks for."""
    return {**_of_gateway(known), **_of_scheduler(known), **_of_steps(known), **_of_worker(known)}


def _of_gateway(known: Known) -> dict[Metric, tuple[float, float]]:
    return {
        metrics.REQUEST_DURATION: (0.01, 30),
        metrics.TIME_TO_FIRST_TOKEN: (0.002, 20),
        metrics.TIME_PER_OUTPUT_TOKEN: (0.0002, 1),
        # A call whose deadline is over before it arrives never reaches the gateway's code.
        metrics.REQUESTS: (known.calls * 0.98, known.calls),
        metrics.STREAMS: (known.slots / 2, known.clients),
        metrics.BOUND_HITS: (0, 0),  # ordinary clients reach no bound
        metrics.TOKENS: (known.output_tokens, MANY),
        metrics.RESULTS_LAG: (1e-5, 0.5),
    }


def _of_scheduler(known: Known) -> dict[Metric, tuple[float, float]]:
    return {
        # Preempted requests wait too; the bound does not count them.
        metrics.QUEUE_DEPTH: (1, known.max_queue + known.slots),
        metrics.SERVICE: (known.output_tokens, 1e8),
        metrics.WAITING: (1, known.max_queue + known.slots),
        metrics.RUNNING: (known.slots / 4, known.slots),
        metrics.SLOTS_USED: (known.slots / 4, known.slots),
        metrics.SLOTS_TOTAL: (known.slots, known.slots),
        metrics.KV_USED: (known.blocks / 2, known.blocks),
        metrics.KV_CACHED: (1, known.blocks),
        metrics.KV_TOTAL: (known.blocks, known.blocks),
        metrics.STEPS_IN_FLIGHT: (1, 9),
        metrics.LOOK_AHEAD: (1, 1),
        metrics.INBOX_BACKLOG: (0, known.max_queue + known.slots),
        metrics.EPOCH: (1, 1),
        metrics.PREDICTED_WAIT: (0, 60),
        metrics.GROUPS: (1, 1),
        metrics.HEARTBEAT_AGE: (0.1, 6),
        metrics.STEP_SECONDS: (5e-4, 0.3),
        metrics.PROMPT_TOKENS: (1000, MANY),
        metrics.PREFIX_HIT_TOKENS: (100, MANY),
        metrics.OUTPUT_TOKENS: (known.output_tokens, MANY),
        metrics.PREEMPTIONS: (1, MANY),
        metrics.WASTED_ROWS: (1, MANY),
        metrics.LATE_ROWS: (1, MANY),
        metrics.STEPS: (500, MANY),
        metrics.GROUP_CLOSINGS: (1, 1),  # a rank is killed
        metrics.MOVED_REQUESTS: (1, known.slots),
        metrics.EPOCHS: (1, 1),
        metrics.FAILOVERS: (0, 0),
    }


def _of_steps(known: Known) -> dict[Metric, tuple[float, float]]:
    return {
        metrics.STEP_TASK: (5e-5, 0.1),
        metrics.STEP_TASK_VISIBLE: (0, 0.05),
        metrics.STEP_VISIBLE: (1e-6, 0.1),
        metrics.STEP_PERIOD: (5e-4, 0.3),
        metrics.STEP_PLAN_AGE: (0, 0.3),
        metrics.STEP_PLAN_WAIT: (0, 0.1),
        metrics.STEP_ROWS: (1, known.slots),
        metrics.STEP_PREFILL: (1000, MANY),
    }


def _of_worker(known: Known) -> dict[Metric, tuple[float, float]]:
    return {
        metrics.WORKER_STEPS: (500 * known.ranks, MANY),
        metrics.STEP_AGE: (1e-5, 10),
        metrics.WORKER_KV_BLOCKS: (known.ranks * known.blocks, known.ranks * known.blocks),
        metrics.WORKER_KV_MEMORY: (known.ranks * 2**19, known.ranks * 2**20),
        metrics.REDIS_ROUND_TRIP: (1e-5, 0.1),
    }


def verdicts(prometheus: Prometheus, known: Known, seconds: float) -> list[Verdict]:
    """Of all metrics that every stack exports, over the last ``seconds``."""
    limits = bounds(known)
    return [
        Verdict(metric, prometheus.value(measured(metric, seconds)), *limits[metric])
        for metric in METRICS
        if not metric.needs
    ]


def measured(metric: Metric, seconds: float) -> str:
    """The query: mean of a histogram, total of a counter, largest amount of the run.

    Of a process that restarted, a counter's highest value is taken.
    """
    name, window = metric.prometheus, f"{seconds:.0f}s"
    if metric.kind is Kind.HISTOGRAM:
        total, count = (f"sum(max_over_time({name}_{part}[{window}]))" for part in ("sum", "count"))
        return f"{total} / {count}"
    if metric.kind is Kind.COUNTER:
        return f"sum(max_over_time({name}[{window}]))"
    over_processes = "max" if metric.kind is Kind.GAUGE else "sum"
    return f"max_over_time({over_processes}({name})[{window}:1s])"


GRAFANA_VARIABLES = {"$model": ".*", "$group": ".*", "$__rate_interval": "10s"}
"""The values that Grafana would insert."""


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One query of a panel and what it returned over the run."""

    dashboard: str
    panel: str
    query: str
    legend: str
    series: int  # with at least one finite value
    largest: float | None
    needs: str  # what its metric needs; empty: nothing

    @property
    def good(self) -> bool:
        return bool(self.needs) or self.series > 0


def panel_queries(prometheus: Prometheus, dashboards: Path, start: float, end: float) -> list[PanelQuery]:
    """Runs every query of every dashboard file, with a resolution of one second."""
    needs = {metric.prometheus: metric.needs for metric in METRICS if metric.needs}
    found = []
    for path in sorted(dashboards.glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"].replace("$__range", f"{end - start:.0f}s")
                for name, value in GRAFANA_VARIABLES.items():
                    query = query.replace(name, value)
                lines = [line.values for line in prometheus.series(query, start, end) if line.values]
                largest = max((max(values) for values in lines), default=None)
                found.append(
                    PanelQuery(
                        path.stem,
                        panel["title"],
                        target["expr"],
                        target["legendFormat"],
                        len(lines),
                        largest,
                        next((what for name, what in needs.items() if name in query), ""),
                    )
                )
    return found
