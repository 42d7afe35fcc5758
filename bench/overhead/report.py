"""The measured steps as a table in the shape of the paper's Table 1, as a chart, and as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from albireo.telemetry.step_times import TASKS, spread
from albireo.tools.drawing import drawing
from bench.overhead.measure import Measured

COLORS = ("#4c72b0", "#55a868", "#d9d9d9", "#dd8452", "#c44e52")


def summarize(measured: Measured) -> dict[str, Any]:
    """Medians and P99 in seconds. The non-scalable share is all of the period but T3."""
    steps = measured.steps
    names = ("period", "t1", "t2", "t3", "t4", "t5", "visible_t1", "visible_t2", "visible_t5", "visible")
    found: dict[str, Any] = {name: spread([getattr(step, name) for step in steps]) for name in names}
    found["plan_age"] = spread([step.plan_age for step in steps])
    mean_period = float(np.mean([step.period for step in steps]))
    model = float(np.mean([step.t3 + step.t4 for step in steps]))
    return {
        **found,
        "steps": len(steps),
        "rows": steps[0].rows,
        "tokens_per_second": steps[0].rows / mean_period,
        "non_scalable_share": 1 - float(np.mean([step.t3 for step in steps])) / mean_period,
        "period_over_t3_t4": mean_period / model,
        "wasted_rows": sum(step.wasted_rows for step in steps),
        "look_ahead": max(step.look_ahead for step in steps),
        "tpot": spread(measured.tpot) if measured.tpot else None,
        "kv_waits": asdict(measured.kv_waits) if measured.kv_waits.steps else None,
        "simulated": measured.simulated,
    }


def table(modes: Mapping[str, dict[str, Any]], title: str, caption: str) -> Table:
    """Milliseconds, median / P99; for each mode a task in full and what of it was visible."""
    found = Table("ms, median / p99", title=Text(title), caption=caption)
    for mode in modes:
        found.add_column(f"{mode}: full", justify="right")
        found.add_column("visible", justify="right")
    for label, full, visible in TASKS:
        cells = [_cell(summary[name]) for summary in modes.values() for name in (full, visible)]
        found.add_row(label, *cells)
    found.add_section()
    found.add_row("T1 + T2 + T5", *(c for s in modes.values() for c in ("", _cell(s["visible"]))))
    found.add_row("step period", *(c for s in modes.values() for c in (_cell(s["period"]), "")))
    found.add_section()
    for label, name, form in (
        ("period / (T3 + T4), 1 is the limit", "period_over_t3_t4", "{:.3f}"),
        ("non-scalable share", "non_scalable_share", "{:.1%}"),
        ("tokens/s", "tokens_per_second", "{:.0f}"),
    ):
        found.add_row(label, *(c for s in modes.values() for c in (form.format(s[name]), "")))
    found.add_row("TPOT at the client", *(c for s in modes.values() for c in (_cell(s["tpot"]), "")))
    found.add_row("wasted rows", *(c for s in modes.values() for c in (str(s["wasted_rows"]), "")))
    if any(summary["kv_waits"] for summary in modes.values()):
        cells = [c for s in modes.values() for c in (_kv_waits(s["kv_waits"]), "")]
        found.add_row("layers waited for KV, of T3 of all steps", *cells)
    return found


def _cell(spread: dict[str, float] | None) -> str:
    return f"{spread['median'] * 1e3:.3f} / {spread['p99'] * 1e3:.3f}" if spread else "--"


def _kv_waits(waits: dict[str, float] | None) -> str:
    return f"{waits['share_of_t3']:.2%}, in {waits['steps']} steps" if waits else "--"


def chart(modes: Mapping[str, dict[str, Any]], title: str, path: Path) -> None:
    """One bar a mode: what a step consists of, visible parts only."""
    names = list(modes)
    left = np.zeros(len(names))
    with drawing(path, figsize=(9, 1.2 + 0.9 * len(names))) as (_, axes):
        for (label, _, visible), color in zip(TASKS, COLORS, strict=True):
            widths = np.array([modes[name][visible]["median"] * 1e3 for name in names])
            axes.barh(names, widths, left=left, color=color, label=label, edgecolor="white", linewidth=0.5)
            left += widths
        for row, total in enumerate(left):
            axes.text(total, row, f"  {total:.2f} ms", va="center")
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel("median milliseconds of a step: forward, sampling, and what delayed the next forward")
        axes.set_title(title, fontsize=10)
        axes.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.32), frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
