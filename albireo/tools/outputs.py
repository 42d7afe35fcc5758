"""The files that a command writes at its end: JSON and pictures.

Commands and benchmarks check them before they begin: a long run must not be lost at its end.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

JsonTo = Annotated[str, typer.Option("--json", help="Also write JSON to this file; - prints it.")]
ChartTo = Annotated[Path | None, typer.Option("--chart", help="Also draw a PNG (needs albireo\\[bench]).")]


def check_outputs(json_to: str, chart_to: Path | None) -> None:
    """Of the options above. Raises BadParameter."""
    check_writable("--json", json_to)
    check_drawable("--chart", chart_to)


def check_writable(option: str, path: str | Path | None) -> None:
    """Changes no file and leaves no new one. None, empty, and ``-`` for standard output, are no file. Raises
    BadParameter."""
    if path is None or str(path) in ("", "-"):
        return
    is_new = not os.path.lexists(path)
    try:
        Path(path).open("ab").close()
        if is_new:
            Path(path).unlink()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint=option) from None


def check_drawable(option: str, path: Path | None) -> None:
    """None: no picture is asked for. Raises BadParameter."""
    if path is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise typer.BadParameter("needs matplotlib: pip install 'albireo[bench]'", param_hint=option)
    if path.suffix != ".png":
        raise typer.BadParameter(f"{path}: must end in .png", param_hint=option)
    check_writable(option, path)


def report(found: Mapping[str, Any], json_to: str, show: Callable[[], None]) -> None:
    """Prints ``found`` as JSON where that is asked for, else calls ``show``, and writes the JSON file."""
    text = json.dumps(found, indent=2) + "\n"
    if json_to == "-":
        sys.stdout.write(text)
        return
    show()
    if json_to:
        Path(json_to).write_text(text, encoding="utf-8")
