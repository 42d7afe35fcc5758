"""The figures of a load run, as plain data and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from albireo.planning import figures
from bench.machine import machine
from bench.serve.load import Record

GPU_ROWS = {
    "utilization": "GPU utilization",
    "watts": "GPU power, W",
    "joules_per_output_token": "J/output token",
}


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Throughput over the whole run; latencies in seconds over the requests that succeeded.

    TPOT is (last token - first token) / (tokens - 1) of a request. Inter-token latency is the time since
    the message before, spread over the tokens of a message that brings several.
    """
    between: list[float] = []
    for record in records:
        if record.error:
            continue
        for (before, _), (at, count) in zip(record.arrivals, record.arrivals[1:], strict=False):
            between += [(at - before) / count] * count
    return {"machine": machine(), **figures.summarize_requests([record.times for record in records], between)}


def table(summary: dict[str, Any], title: str) -> Table:
    """Latencies in milliseconds, throughput below, then what the GPUs took and which requests failed."""
    found = figures.table(summary, title, summary["machine"])
    for name, label in GPU_ROWS.items():
        if name in summary.get("gpu", {}):
            found.add_row(label, f"{summary['gpu'][name]:.3g}")
    figures.add_errors(found, summary)
    return found
