"""The picture for the README: throughput of one group over its TP degree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from albireo.tools.drawing import drawing
from bench.paper import data
from bench.paper.data import Mode
from bench.paper.degrees import CLAIMS, DEGREES, over_degrees
from bench.paper.outcome import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS: dict[Mode, str] = {"synchronous": "#4c72b0", "full": "#dd8452"}
NAMES: dict[Mode, str] = {"synchronous": "synchronous", "full": "overlapped, parallel sampling"}


def chart(outcome: Outcome, path: Path) -> None:
    """A panel for each model: a line for what is simulated, points for what the paper measured."""
    with drawing(path, 1, len(CLAIMS), figsize=(10, 3.6), sharex=True) as (figure, panels):
        for axes, claim in zip(panels, CLAIMS, strict=True):
            _draw_model(axes, outcome, claim.model)
        panels[0].set_ylabel("thousand tokens per second")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        figure.suptitle(
            f"One group of H100s, {data.IN_FLIGHT} requests in flight: simulated, "
            f"calibrated with one row of {data.SOURCE}",
            fontsize=10,
        )


def _draw_model(axes: Axes, outcome: Outcome, model: str) -> None:
    rows = [row for row in (*data.ROWS, *data.SCALING) if row.model == model]
    for mode in data.BOTH:
        color, name = COLORS[mode], NAMES[mode]
        simulated = over_degrees(model, mode, outcome.throughput)
        axes.plot(list(simulated), list(simulated.values()), color=color, label=f"{name}: simulated")
        measured = [row.throughput[mode] for row in rows]
        axes.plot([row.tp for row in rows], measured, "o", color=color, label=f"{name}: measured (paper)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(DEGREES, [str(tp) for tp in DEGREES])
    axes.set(title=model, xlabel="TP degree", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
