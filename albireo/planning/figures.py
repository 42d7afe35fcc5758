"""The figures of a run, measured or simulated: throughput and latencies, as plain data and as a table.

``bench.serve.report`` and the report of a simulation both make theirs with it, so that they compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from albireo.planning.result import RequestTimes

Floats = npt.NDArray[np.float64]

PERCENTILES = (50, 90, 95, 99)
LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "inter_token": "inter-token", "end_to_end": "end to end"}


def summarize_requests(
    requests: Sequence[RequestTimes], inter_token: Sequence[float] | Floats
) -> dict[str, Any]:
    """Throughput over the whole run; latencies in seconds over the requests that succeeded.

    ``inter_token``: seconds from each token of them to the next one of the same request.
    """
    good = [request for request in requests if not request.error and request.tokens]
    seconds = max((r.ended for r in requests), default=0.0) - min((r.sent for r in requests), default=0.0)
    tokens = sum(request.tokens for request in good)
    return {
        "requests": len(requests),
        "errors": dict(Counter(request.error for request in requests if request.error)),
        "seconds": seconds,
        "requests_per_second": len(good) / seconds if seconds else 0.0,
        "output_tokens": tokens,
        "output_tokens_per_second": tokens / seconds if seconds else 0.0,
        "ttft": spread([request.ttft for request in good]),
        "tpot": spread([request.tpot for request in good if request.tpot is not None]),
        "inter_token": spread(inter_token),
        "end_to_end": spread([request.ended - request.sent for request in good]),
    }


def spread(values: Sequence[float] | Floats) -> dict[str, float]:
    """Mean and percentiles, by name; empty where there are no values."""
    if not len(values):
        return {}
    percentiles = np.percentile(values, PERCENTILES)
    return {
        "mean": float(np.mean(values)),
        **{f"p{p}": float(value) for p, value in zip(PERCENTILES, percentiles, strict=True)},
    }


def table(summary: dict[str, Any], title: str, caption: str) -> Table:
    """Latencies in milliseconds, throughput below. Rows may be added."""
    columns = ("mean", *(f"p{p}" for p in PERCENTILES))
    found = Table("ms", *columns, title=Text(title), caption=Text(caption))
    for name, label in LATENCIES.items():
        found.add_row(label, *(f"{summary[name][c] * 1000:.1f}" if summary[name] else "--" for c in columns))
    found.add_section()
    found.add_row("requests/s", f"{summary['requests_per_second']:.2f}")
    found.add_row("output tokens/s", f"{summary['output_tokens_per_second']:.1f}")
    found.add_row("requests", str(summary["requests"]))
    return found


def add_errors(found: Table, summary: dict[str, Any]) -> None:
    """The last rows of the table: how many requests failed, and why."""
    for error, count in summary["errors"].items():
        # Not as markup: a message may contain square brackets.
        found.add_row(Text("failed", style="red"), str(count), Text(error))
