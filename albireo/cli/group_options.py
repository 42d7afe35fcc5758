"""Options of the commands that simulate groups: the model, and what a group and its scheduler take."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from albireo.cli.terminal import check_drawable, check_writable, fail

ModelDirectory = Annotated[Path, typer.Option(help="Directory of a config.json; needs no weights.")]
Synchronous = Annotated[bool, typer.Option("--synchronous", help="Without overlap, to compare.")]
Sampling = Annotated[Literal["auto", "parallel", "driver"], typer.Option(help="Who samples, as of a worker.")]
MaxSeqs = Annotated[
    int, typer.Option(min=1, max=65536, help="Slots of a group: most requests that run at once.")
]
MaxModelLen = Annotated[
    int, typer.Option(min=0, help="Most tokens of one request; 0: what the model takes, at most 8192.")
]
MaxBatchedTokens = Annotated[int, typer.Option(min=1, help="Most tokens of one step.")]
PrefillChunk = Annotated[int, typer.Option(min=1, help="Most prompt tokens of one request in one step.")]
JsonTo = Annotated[str, typer.Option("--json", help="Also write JSON to this file; - prints it.")]
ChartTo = Annotated[Path | None, typer.Option("--chart", help="Also draw a PNG (needs albireo\\[bench]).")]


def check_outputs(chart_to: Path | None, json_to: str) -> None:
    """Ends the command before it has simulated anything where its report could not be made."""
    if importlib.util.find_spec("greenlet") is None:
        fail("virtual time needs greenlet: pip install 'albireo[simulation]'")
    check_drawable("--chart", chart_to)
    check_writable("--json", json_to)


def refuse(error: ValueError) -> NoReturn:
    """``error`` begins with the option's name where it is of one."""
    name, colon, message = str(error).partition(": ")
    if colon and name.isidentifier():
        raise typer.BadParameter(message, param_hint=f"--{name.replace('_', '-')}") from None
    raise typer.BadParameter(str(error)) from None
