"""Options and errors that the commands have in common."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from albireo import DEFAULT_TARGET

Target = Annotated[str, typer.Option(envvar="ALBIREO_TARGET", help="Address of a gateway, host:port.")]
TARGET = DEFAULT_TARGET
Model = Annotated[
    str,
    typer.Option(
        "--model-name", help="Name of the model; empty: that of the gateway's --model, or the only one."
    ),
]


def fail(message: str) -> NoReturn:
    """Ends the command with one line on standard error, exit status 1."""
    typer.echo(f"albireo: {message}", err=True)
    raise typer.Exit(1)
