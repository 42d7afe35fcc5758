"""The paper's tables, predicted from one calibration.

python -m bench.paper [--json] [--estimate] [--chart PNG] [--document MARKDOWN] [--processes N]
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from albireo.tools.outputs import check_drawable, check_writable
from bench.paper import tables
from bench.paper.chart import chart as draw
from bench.paper.document import document as write
from bench.paper.estimate import estimated
from bench.paper.outcome import predict_paper
from bench.paper.runs import simulated
from worker_svc.cost.device import Device


def main(
    device: Annotated[str, typer.Option(help="What is calibrated: a preset, or a TOML file.")] = "h100",
    estimate: Annotated[bool, typer.Option(help="From the mean step, without simulations.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    chart: Annotated[Path | None, typer.Option(help="Draw throughput over t to this PNG file.")] = None,
    document: Annotated[Path | None, typer.Option(help="Write all to this Markdown file.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Simulations at a time.")] = 2,
) -> None:
    """Prints what the paper has, what is simulated, and the error of each."""
    check_drawable("--chart", chart)
    check_writable("--document", document)
    try:
        base = Device.load(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from None
    predict = estimated if estimate else simulated
    outcome = predict_paper(base, predict, processes=1 if estimate else processes)
    if as_json:
        print(json.dumps(outcome.as_json(), indent=2))
    else:
        Console().print(*(table.rich() for table in tables.all_tables(outcome)))
    if chart is not None:
        draw(outcome, chart)
    if document is not None:
        write(outcome, document, date=f"{datetime.now(UTC):%Y-%m-%d}")


if __name__ == "__main__":
    typer.run(main)
