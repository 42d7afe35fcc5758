"""A few steps of a Chrome trace as a picture, for ``albireo trace --picture``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.tools.drawing import drawing
from albireo.tools.trace.copy_lanes import NAMES

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
    "wait for KV": "#da8bc3",
    "stream": "#937860",
    "fetch": "#64b5cd",
    "spill": "#ccb974",
}
COPIES = tuple(NAMES)


def draw(trace: dict[str, Any], path: Path, *, first: int, steps: int) -> None:
    """Steps ``first`` to ``first + steps - 1``, each bar with the step's number, and the copies of KV that
    ran meanwhile; one row a lane."""
    from matplotlib.patches import Patch

    events = trace["traceEvents"]
    lanes = _lanes(events)
    rows = {lane: index for index, lane in enumerate(lanes)}
    drawn = shown([e for e in events if e["ph"] == "X"], first, steps)
    start = min(e["ts"] for e in drawn)
    kinds = {_kind(e) for e in drawn}
    with drawing(path, figsize=(13, 1.0 + 0.75 * len(lanes))) as (_, axes):
        for event in drawn:
            _draw_event(axes, rows[event["pid"], event["tid"]], event, start)
        axes.set_yticks(list(rows.values()), list(lanes.values()))
        axes.invert_yaxis()
        axes.set_xlabel("milliseconds")
        colors = {kind: color for kind, color in COLORS.items() if kind in kinds}
        handles, below = [Patch(color=color) for color in colors.values()], (0.5, -0.2)
        axes.legend(
            handles, colors, ncols=len(colors), loc="upper center", bbox_to_anchor=below, frameon=False
        )
        simulated = any(e["cat"].startswith("simulated") for e in drawn)
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


def shown(spans: list[dict[str, Any]], first: int, steps: int) -> list[dict[str, Any]]:
    """Those of the steps, and of each copy what is between their begin and their end: the step that reports a
    copy is a later one."""
    found = [e for e in spans if _kind(e) not in COPIES and first <= e["args"]["step"] < first + steps]
    begin, end = min(e["ts"] for e in found), max(e["ts"] + e["dur"] for e in found)
    for copy in (e for e in spans if _kind(e) in COPIES):
        left, right = max(begin, copy["ts"]), min(end, copy["ts"] + copy["dur"])
        if left < right:
            found.append({**copy, "ts": left, "dur": right - left})
    return found


def _kind(event: dict[str, Any]) -> str:
    category: str = event["cat"]
    return category.removeprefix("simulated ")


def _draw_event(axes: Axes, row: int, event: dict[str, Any], start: float) -> None:
    """``start``: microseconds of the trace's clock at the left edge."""
    kind, step = _kind(event), str(event["args"]["step"])
    left, width = (event["ts"] - start) / 1e3, event["dur"] / 1e3
    axes.barh(row, width, left=left, height=0.7, color=COLORS[kind], edgecolor="white", linewidth=0.3)
    if kind in ("forward", "sampling"):
        axes.text(left + width / 2, row, step, ha="center", va="center", fontsize=7)
    elif kind in ("plan", "input", "output"):
        axes.text(left, row - 0.4, step, ha="left", va="bottom", fontsize=6)
