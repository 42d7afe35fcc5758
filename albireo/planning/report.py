"""The report of a simulated run: plain data, a table and a chart. ``albireo simulate`` makes it.

The figures are those of ``albireo bench serve``, by the same names, and what only a simulation knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from albireo.planning import figures
from albireo.planning.figures import Floats
from albireo.planning.hits import hit_tokens, prompt_tokens
from albireo.planning.result import SimulationResult
from albireo.planning.workload import Workload

PARTS = {
    "t3": "T3 forward",
    "t4": "T4 sampling",
    "visible_t1": "T1 visible",
    "visible_t2": "T2 visible",
    "visible_t5": "T5 visible",
    "other": "no requests",
}
"""What the time of a run consists of, for the device."""
TASKS = ("t1", "t2", "t3", "t4", "t5")


def summarize(result: SimulationResult, workload: Workload) -> dict[str, Any]:
    """Throughput and latencies as of a measured run (seconds), then preemptions, KV use, hits in the prefix
    cache, streamed output tokens, waits for KV (also as a share of T3), steps and shares. Prompts count again
    after a preemption.

    Inter-token latency goes by steps: the time between two results counts once for each row that decoded in
    the second. A row that was paused in between counts like the others.
    """
    totals, seconds, blocks = result.totals, result.seconds, result.num_blocks
    mean_blocks = totals.kv_blocks_used / seconds if seconds else 0.0
    return {
        "simulated": True,
        "workload": workload.name,
        **figures.summarize_requests(result.requests, _by_row(result.result_periods)),
        "preemptions": result.preemptions,
        "kv": {
            "blocks": blocks,
            "peak_blocks": result.peak_blocks,
            "peak_share": result.peak_blocks / blocks,
            "mean_share": mean_blocks / blocks,
        },
        "prefix_cache": {
            "prompt_tokens": prompt_tokens(result),
            "hit_tokens": hit_tokens(result),
        },
        "streamed_tokens": totals.streamed_tokens,
        "kv_wait": {"seconds": totals.kv_wait, "share": _per(totals.kv_wait, totals.t3)},
        "steps": {
            "count": totals.steps,
            "decode_rows": totals.decode_rows / totals.steps if totals.steps else 0.0,
            "prefill_tokens": totals.prefill_tokens,
            "wasted_rows": totals.wasted_rows,
            "seconds": {name: _per(getattr(totals, name), totals.steps) for name in TASKS},
        },
        "step_shares": step_shares(result),
    }


def step_shares(result: SimulationResult) -> dict[str, float]:
    """What the device did during the run, as shares of it, by the keys of PARTS; they add up to 1."""
    totals = result.totals
    found = {name: _per(getattr(totals, name), result.seconds) for name in PARTS if name != "other"}
    return {**found, "other": max(0.0, 1 - sum(found.values())) if result.seconds else 0.0}


def _per(total: float, of: float) -> float:
    return total / of if of else 0.0


def _by_row(periods: Sequence[tuple[float, int]]) -> Floats:
    """Each period as often as it has rows: an array, since a long run has many millions."""
    if not periods:
        return np.zeros(0)
    seconds, rows = zip(*periods, strict=True)
    return np.repeat(np.array(seconds), rows)


def table(summary: dict[str, Any]) -> Table:
    """Of :func:`summarize`, with ``setup`` (model, device, TP degree) and ``source`` (of the cost model), of
    which the first sentence is shown."""
    source, _, _ = " ".join(summary["source"].split()).partition(". ")
    caption = f"{summary['workload']}. Cost model: {source}"
    found = figures.table(summary, f"simulated: {summary['setup']}", caption)
    kv, steps = summary["kv"], summary["steps"]
    found.add_section()
    found.add_row("preemptions", str(summary["preemptions"]))
    found.add_row("KV use, peak", f"{kv['peak_share']:.0%}", f"of {kv['blocks']} blocks")
    found.add_row("KV use, mean", f"{kv['mean_share']:.0%}")
    found.add_section()
    prompts = summary["prefix_cache"]["prompt_tokens"]
    for where, tokens in summary["prefix_cache"]["hit_tokens"].items():
        found.add_row(f"prefix hits, {where}", str(tokens), f"{_per(tokens, prompts):.1%} of the prompts")
    if len(summary["prefix_cache"]["hit_tokens"]) > 1:
        wait = summary["kv_wait"]
        found.add_row("waits for KV", f"{wait['seconds'] * 1000:.1f}", f"{wait['share']:.2%} of T3")
    if streamed := summary["streamed_tokens"]:
        found.add_row("streamed tokens", str(streamed), "of requests longer than the KV blocks")
    found.add_section()
    found.add_row("steps", str(steps["count"]), f"{steps['decode_rows']:.1f} rows")
    found.add_section()
    for name in TASKS:
        shares = summary["step_shares"]
        visible = shares[name] if name in shares else shares[f"visible_{name}"]
        found.add_row(
            f"{name.upper()} of a step", f"{steps['seconds'][name] * 1000:.3f}", f"{visible:.1%} of the run"
        )
    figures.add_errors(found, summary)
    return found
