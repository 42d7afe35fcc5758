"""A few steps of a Chrome trace as a picture, for ``albireo trace --picture``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.tools.drawing import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {
    "plan": "#4c72b0",
    "publish": "#8ba7d3",
    "input": "#55a868",
    "forward": "#bdbdbd",
    "sampling": "#dd8452",
    "output": "#c44e52",
    "hand out": "#8172b3",
}


def draw(trace: dict[str, Any], path: Path, *, first: int, steps: int) -> None:
    """Steps ``first`` to ``first + steps - 1``, one row a lane, each bar with the step's number."""
    from matplotlib.patches import Patch

    events = trace["traceEvents"]
    lanes = _lanes(events)
    rows = {lane: index for index, lane in enumerate(lanes)}
    shown = [e for e in events if e["ph"] == "X" and first <= e["args"]["step"] < first + steps]
    start = min(e["ts"] for e in shown)
    with drawing(path, figsize=(13, 1.0 + 0.75 * len(lanes))) as (_, axes):
        for event in shown:
            _draw_event(axes, rows[event["pid"], event["tid"]], event, start)
        axes.set_yticks(list(rows.values()), list(lanes.values()))
        axes.invert_yaxis()
        axes.set_xlabel("milliseconds")
        handles, below = [Patch(color=color) for color in COLORS.values()], (0.5, -0.2)
        axes.legend(
            handles, COLORS, ncols=len(COLORS), loc="upper center", bbox_to_anchor=below, frameon=False
        )
        simulated = any(e["cat"].startswith("simulated") for e in shown)
        axes.set_title("simulated device, everything else real" if simulated else "", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)


def _lanes(events: list[dict[str, Any]]) -> dict[tuple[int, int], str]:
    """Label of each lane, by process and thread, from top to bottom."""
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    return {
        (e["pid"], e["tid"]): f"{processes[e['pid']]}\n{e['args']['name']}"
        for e in events
        if e["name"] == "thread_name"
    }


def _draw_event(axes: Axes, row: int, event: dict[str, Any], start: float) -> None:
    """``start``: microseconds of the trace's clock at the left edge."""
    kind, step = event["cat"].removeprefix("simulated "), str(event["args"]["step"])
    left, width = (event["ts"] - start) / 1e3, event["dur"] / 1e3
    axes.barh(row, width, left=left, height=0.7, color=COLORS[kind], edgecolor="white", linewidth=0.3)
    if kind in ("forward", "sampling"):
        axes.text(left + width / 2, row, step, ha="center", va="center", fontsize=7)
    elif kind in ("plan", "input", "output"):
        axes.text(left, row - 0.4, step, ha="left", va="bottom", fontsize=6)
