"""Options and errors that the commands have in common."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from albireo import DEFAULT_TARGET

Target = Annotated[str, typer.Option(envvar="ALBIREO_TARGET", help="Address of a gateway, host:port.")]
TARGET = DEFAULT_TARGET
Model = Annotated[
    str, typer.Option("--model-name", help="Name of the served model; empty: the one that is served.")
]


def fail(message: str) -> NoReturn:
    """Ends the command with one line on standard error, exit status 1."""
    typer.echo(f"albireo: {message}", err=True)
    raise typer.Exit(1)


def check_writable(option: str, path: str) -> None:
    """Checked before a long run, so that its figures are not lost; changes no file and leaves no new one.
    Empty, and ``-`` for standard output, are no file. Raises BadParameter."""
    if path in ("", "-"):
        return
    is_new = not os.path.lexists(path)
    try:
        Path(path).open("ab").close()
        if is_new:
            Path(path).unlink()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint=option) from None


def check_drawable(option: str, path: Path | None) -> None:
    """Ends the command before it has done anything where a picture could not be drawn to ``path``; None: no
    picture is asked for. Raises BadParameter."""
    if path is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        fail("pictures need matplotlib: pip install 'albireo[bench]'")
    if path.suffix != ".png":
        raise typer.BadParameter(f"{path}: must end in .png", param_hint=option)
    check_writable(option, str(path))
