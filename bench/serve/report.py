"""The figures of a load run, as plain data and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from bench.machine import machine
from bench.serve.load import Record

PERCENTILES = (50, 90, 95, 99)
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
    good = [r for r in records if not r.error and r.arrivals]
    seconds = max((r.ended for r in records), default=0.0) - min((r.sent for r in records), default=0.0)
    ttft = [r.arrivals[0][0] - r.sent for r in good]
    tpot = [r.tpot for r in good if r.tpot is not None]
    between: list[float] = []
    for record in good:
        for (before, _), (at, count) in zip(record.arrivals, record.arrivals[1:], strict=False):
            between += [(at - before) / count] * count
    return {
        "machine": machine(),
        "requests": len(records),
        "errors": dict(Counter(r.error for r in records if r.error)),
        "seconds": seconds,
        "requests_per_second": len(good) / seconds if seconds else 0.0,
        "output_tokens": sum(r.tokens for r in good),
        "output_tokens_per_second": sum(r.tokens for r in good) / seconds if seconds else 0.0,
        "ttft": _spread(ttft),
        "tpot": _spread(tpot),
        "inter_token": _spread(between),
        "end_to_end": _spread([r.ended - r.sent for r in good]),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    found = {"mean": float(np.mean(values))}
    for percentile in PERCENTILES:
        found[f"p{percentile}"] = float(np.percentile(values, percentile))
    return found


def table(summary: dict[str, Any], title: str) -> Table:
    """Latencies in milliseconds, throughput below."""
    columns = ("mean", *(f"p{p}" for p in PERCENTILES))
    found = Table("ms", *columns, title=Text(title), caption=summary["machine"])
    for name, label in (
        ("ttft", "TTFT"),
        ("tpot", "TPOT"),
        ("inter_token", "inter-token"),
        ("end_to_end", "end to end"),
    ):
        found.add_row(label, *(f"{summary[name][c] * 1000:.1f}" if summary[name] else "--" for c in columns))
    found.add_section()
    found.add_row("requests/s", f"{summary['requests_per_second']:.2f}")
    found.add_row("output tokens/s", f"{summary['output_tokens_per_second']:.1f}")
    found.add_row("requests", str(summary["requests"]))
    for name, label in GPU_ROWS.items():
        if name in summary.get("gpu", {}):
            found.add_row(label, f"{summary['gpu'][name]:.3g}")
    for error, count in summary["errors"].items():
        # Not as markup: a message may contain square brackets.
        found.add_row(Text("failed", style="red"), str(count), Text(error))
    return found
