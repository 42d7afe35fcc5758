"""``albireo bench sampling``: T4 on one rank and on all of them, beside the time to read the logits once."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.serve.report import machine

if TYPE_CHECKING:
    from bench.sampling import Measured

COLORS = {"driver-only": "#4c72b0", "parallel": "#dd8452", "by sorting": "#c44e52", "one read": "#999999"}


def sampling(
    tp: Annotated[list[int], typer.Option(min=1, max=64, help="Ranks; may be given several times.")] = [1, 2],  # noqa: B006
    batch: Annotated[list[int], typer.Option(min=1, help="Rows; may be given several times.")] = [4, 16, 64],  # noqa: B006
    vocabulary: Annotated[list[int], typer.Option(min=64, help="Ids; likewise.")] = [151_936],  # noqa: B006
    controls: Annotated[list[str], typer.Option(help="Sets of controls; likewise. All by default.")] = [],  # noqa: B006
    dtype: Annotated[str, typer.Option(help="Of the model: float32 or bfloat16.")] = "float32",
    threads: Annotated[int, typer.Option(min=1, help="Threads of each rank.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Steps that are measured in each case.")] = 20,
    json_to: Annotated[str, typer.Option("--json", help="Also write JSON to this file; - prints it.")] = "",
    chart_to: Annotated[
        Path | None, typer.Option("--chart", help="Also draw a PNG (needs albireo[bench]).")
    ] = None,
) -> None:
    """Samples made-up logits on this machine's CPU, driver-only and in parallel in turn."""
    from bench.sampling import CONTROLS, DTYPES, Case, measure

    if unknown := set(controls) - set(CONTROLS):
        raise typer.BadParameter(f"{', '.join(unknown)}; known: {', '.join(CONTROLS)}")
    if dtype not in DTYPES:
        raise typer.BadParameter(f"--dtype: {dtype}; known: {', '.join(DTYPES)}")
    cases = [Case(c, b, v, dtype) for v in vocabulary for c in controls or CONTROLS for b in batch]
    console = Console(stderr=True)
    found: list[Measured] = []
    for ranks in tp:
        with console.status(f"{len(cases)} cases on {ranks} rank(s) of {threads} thread(s)"):
            found += measure(cases, tp=ranks, threads=threads, rounds=rounds)
    title = (
        f"T4 on the CPU, logits in {dtype}, {threads} thread(s) a rank, {len(os.sched_getaffinity(0))} cores"
    )
    if chart_to is not None:
        chart(found, title, chart_to)
    data = {"setup": title, "machine": machine(), "cases": [asdict(measured) for measured in found]}
    if json_to == "-":
        sys.stdout.write(json.dumps(data, indent=2) + "\n")
        return
    Console().print(table(found, title))
    if json_to:
        Path(json_to).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def table(found: list[Measured], title: str) -> Table:
    """Median milliseconds."""
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
    import matplotlib  # here: nothing else needs it, and it is slow to import

    matplotlib.use("Agg")
    from matplotlib import pyplot

    largest = max(measured.vocabulary for measured in found)
    found = [measured for measured in found if measured.vocabulary == largest]
    rows = sorted({measured.tp for measured in found})
    columns = list(dict.fromkeys(measured.controls for measured in found))
    figure, grid = pyplot.subplots(
        len(rows),
        len(columns),
        figsize=(3 * len(columns), 2.8 * len(rows)),
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for row, tp in enumerate(rows):
        for column, controls in enumerate(columns):
            axes, some = grid[row][column], [m for m in found if (m.tp, m.controls) == (tp, controls)]
            batches = [measured.batch for measured in some]
            lines = {
                "driver-only": [m.driver for m in some],
                "parallel": [m.parallel for m in some if m.parallel is not None],
                "by sorting": [m.sort for m in some],
                "one read": [m.read for m in some],
            }
            for name, seconds in lines.items():
                if seconds:
                    axes.plot(batches, [s * 1e3 for s in seconds], color=COLORS[name], label=name, marker=".")
            axes.set_title(f"t = {tp}, {controls}", fontsize=9)
            axes.set(xscale="log", yscale="log")
            axes.set_xticks(batches, [str(batch) for batch in batches])
            axes.xaxis.set_minor_formatter("")
            axes.spines[["top", "right"]].set_visible(False)
    grid[-1][0].set(xlabel="rows", ylabel="ms")
    grid[-1][0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{title}, vocabulary {largest:,}", fontsize=10)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
