"""The command ``python -m bench.observability``: checks all telemetry of a stack under load.

    python -m bench.observability --picture docs/request_trace.png

Needs `prometheus` on the PATH. Checks that every metric is scraped with a plausible value, that every query
of every dashboard returns data, that the alert rules load, and that a request's trace has spans of all tiers.
The exit status is 1 where a check fails. Takes about 80 seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from albireo.models import TINY
from albireo.tools.outputs import check_drawable
from bench.machine import machine
from bench.observability import picture
from bench.observability.observe import CLIENTS, RANKS, SLOTS, TIERS, observe
from bench.observability.report import problems, tables


def main(
    model: Annotated[Path, typer.Option(help="Directory of the checkpoint.")] = TINY,
    seconds: Annotated[float, typer.Option(min=5, help="Of load, before and after the group dies.")] = 25,
    drawing: Annotated[
        Path | None, typer.Option("--picture", help="Draw a trace into this PNG (needs albireo\\[bench]).")
    ] = None,
) -> None:
    """Prints what was found, table by table."""
    check_drawable("--picture", drawing)
    found = observe(model, seconds)
    Console(width=150).print(*tables(found), sep="\n")
    if drawing is not None and found.trace:
        setup = f"{model.name} on {RANKS} ranks, {CLIENTS} clients and {SLOTS} slots; {machine()}"
        picture.draw(found.trace, drawing, setup=setup)
    wrong = problems(found, TIERS)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    typer.run(main)
