"""``albireo bench sampling``: T4 on one rank and on all of them, compared with reading the logits once."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from albireo.tools.outputs import ChartTo, JsonTo, check_outputs, report
from bench.machine import machine
from bench.sampling.report import chart, table

if TYPE_CHECKING:
    from bench.sampling.measure import Measured


def sampling(
    tp: Annotated[list[int], typer.Option(min=1, max=64, help="Ranks; may be given several times.")] = [1, 2],  # noqa: B006
    batch: Annotated[list[int], typer.Option(min=1, help="Rows; may be given several times.")] = [4, 16, 64],  # noqa: B006
    vocabulary: Annotated[list[int], typer.Option(min=64, help="Ids; likewise.")] = [151_936],  # noqa: B006
    controls: Annotated[list[str], typer.Option(help="Sets of controls; likewise. All by default.")] = [],  # noqa: B006
    dtype: Annotated[str, typer.Option(help="Of the model: float32 or bfloat16.")] = "float32",
    threads: Annotated[int, typer.Option(min=1, help="Threads of each rank.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Steps that are measured in each case.")] = 20,
    device: Annotated[str, typer.Option(help="cpu, or cuda with --tp 1.")] = "cpu",
    json_to: JsonTo = "",
    chart_to: ChartTo = None,
) -> None:
    """Samples random logits on this machine's CPU, driver-only and in parallel, in turn; or on its GPU."""
    from bench.sampling.measure import CONTROLS, DTYPES, Case, measure

    check_outputs(json_to, chart_to)
    if unknown := set(controls) - set(CONTROLS):
        raise typer.BadParameter(f"{', '.join(unknown)}; known: {', '.join(CONTROLS)}")
    if dtype not in DTYPES:
        raise typer.BadParameter(f"--dtype: {dtype}; known: {', '.join(DTYPES)}")
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(f"--device: {device}; known: cpu, cuda")
    if device == "cuda" and tp != [1]:
        raise typer.BadParameter("--device cuda: on a GPU, one rank alone is measured: add --tp 1")
    cases = [Case(c, b, v, dtype) for v in vocabulary for c in controls or CONTROLS for b in batch]
    console = Console(stderr=True)
    found: list[Measured] = []
    for ranks in tp:
        with console.status(f"{len(cases)} cases on {ranks} rank(s) of {threads} thread(s)"):
            found += measure(cases, tp=ranks, threads=threads, rounds=rounds, device=device)
    where = f"the CPU, {threads} thread(s) a rank, {len(os.sched_getaffinity(0))} cores"
    title = f"T4 on {'the GPU' if device == 'cuda' else where}, logits in {dtype}"
    if chart_to is not None:
        chart(found, title, chart_to)
    data = {"setup": title, "machine": machine(), "cases": [asdict(measured) for measured in found]}
    report(data, json_to, lambda: Console().print(table(found, title)))
