"""The measured cases of ``albireo bench sampling`` as a table and as a chart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from albireo.tools.drawing import drawing
from bench.machine import machine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench.sampling.measure import Measured

COLORS = {"driver-only": "#4c72b0", "parallel": "#dd8452", "by sorting": "#c44e52", "one read": "#999999"}


def table(found: list[Measured], title: str) -> Table:
    """A row for each case; times are medians in milliseconds."""
    columns = ("t", "vocabulary", "controls", "batch", "driver-only", "parallel", "parallel / driver-only")
    shown = Table(
        *columns, "one read", "driver-only / one read", "by sorting", title=title, caption=machine()
    )
    for measured in found:
        parallel = measured.parallel
        shown.add_row(
            str(measured.tp),
            f"{measured.vocabulary:,}",
            measured.controls,
            str(measured.batch),
            f"{measured.driver * 1e3:.2f}",
            f"{parallel * 1e3:.2f}" if parallel is not None else "--",
            f"{parallel / measured.driver:.2f}" if parallel is not None else "--",
            f"{measured.read * 1e3:.2f}",
            f"{measured.driver / measured.read:.1f}",
            f"{measured.sort * 1e3:.2f}",
        )
    return shown


def chart(found: list[Measured], title: str, path: Path) -> None:
    """A panel for each TP degree and set of controls at the largest vocabulary: T4 over the batch."""
    largest = max(measured.vocabulary for measured in found)
    found = [measured for measured in found if measured.vocabulary == largest]
    rows = sorted({measured.tp for measured in found})
    columns = list(dict.fromkeys(measured.controls for measured in found))
    size = (3 * len(columns), 2.8 * len(rows))
    shared = {"sharex": True, "sharey": True, "squeeze": False}
    with drawing(path, len(rows), len(columns), figsize=size, **shared) as (figure, grid):
        for row, tp in enumerate(rows):
            for column, controls in enumerate(columns):
                cases = [m for m in found if (m.tp, m.controls) == (tp, controls)]
                _draw_panel(grid[row][column], cases)
                grid[row][column].set_title(f"t = {tp}, {controls}", fontsize=9)
        grid[-1][0].set(xlabel="rows", ylabel="ms")
        grid[-1][0].legend(frameon=False, fontsize=8)
        figure.suptitle(f"{title}, vocabulary {largest:,}", fontsize=10)


def _draw_panel(axes: Axes, cases: list[Measured]) -> None:
    """A line for each way of sampling, over the rows of the batch."""
    batches = [measured.batch for measured in cases]
    lines = {
        "driver-only": [m.driver for m in cases],
        "parallel": [m.parallel for m in cases if m.parallel is not None],
        "by sorting": [m.sort for m in cases],
        "one read": [m.read for m in cases],
    }
    for name, seconds in lines.items():
        if seconds:
            axes.plot(batches, [s * 1e3 for s in seconds], color=COLORS[name], label=name, marker=".")
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.xaxis.set_minor_formatter("")
    axes.spines[["top", "right"]].set_visible(False)
