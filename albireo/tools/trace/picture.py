"""A few steps of a Chrome trace as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    import matplotlib  # here: nothing else needs it, and it is slow to import

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    events = trace["traceEvents"]
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    lanes = {
        (e["pid"], e["tid"]): f"{processes[e['pid']]}\n{e['args']['name']}"
        for e in events
        if e["name"] == "thread_name"
    }
    rows = {lane: index for index, lane in enumerate(lanes)}
    shown = [e for e in events if e["ph"] == "X" and first <= e["args"]["step"] < first + steps]
    start = min(e["ts"] for e in shown)
    figure, axes = pyplot.subplots(figsize=(13, 1.0 + 0.75 * len(lanes)), layout="constrained")
    for event in shown:
        kind = event["cat"].removeprefix("simulated ")
        left, width = (event["ts"] - start) / 1e3, event["dur"] / 1e3
        row = rows[event["pid"], event["tid"]]
        axes.barh(row, width, left=left, height=0.7, color=COLORS[kind], edgecolor="white", linewidth=0.3)
        if kind in ("forward", "sampling"):
            axes.text(left + width / 2, row, str(event["args"]["step"]), ha="center", va="center", fontsize=7)
        elif kind in ("plan", "input", "output"):
            axes.text(left, row - 0.4, str(event["args"]["step"]), ha="left", va="bottom", fontsize=6)
    axes.set_yticks(list(rows.values()), list(lanes.values()))
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    handles = [Patch(color=color) for color in COLORS.values()]
    axes.legend(
        handles, COLORS, ncols=len(COLORS), loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False
    )
    simulated = any(e["cat"].startswith("simulated") for e in shown)
    axes.set_title("simulated device, everything else real" if simulated else "", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
