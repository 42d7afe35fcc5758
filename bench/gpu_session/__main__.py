"""Measures everything on a GPU machine: ``python -m bench.gpu_session --out DIR``, from a checkout's root.

Writes ``gpu_session.json`` and ``gpu_session.md`` after each part, so a session that is cut off leaves what
it has. With ``--device cpu --quick`` it shows on any machine that it runs; its figures say nothing then.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.gpu_session.page import page
from bench.gpu_session.part import run_part
from bench.gpu_session.parts import all_parts
from bench.gpu_session.shapes import SHAPES


class Device(StrEnum):
    """Where the model runs."""

    CUDA = "cuda"
    CPU = "cpu"


def main(
    out: Annotated[Path, typer.Option(help="Folder for the JSON file and the page.")] = Path("gpu_session"),
    device: Annotated[Device, typer.Option(help="Where the model runs.")] = Device.CUDA,
    shape: Annotated[str, typer.Option(help=f"Of the model alone: {', '.join(SHAPES)}.")] = "llama-3.1-8b",
    quick: Annotated[bool, typer.Option("--quick", help="Little of everything: whether it runs.")] = False,
    only: Annotated[list[str], typer.Option(help="A part; may be given several times. All by default.")] = [],  # noqa: B006
) -> None:
    """Runs all parts, each with a time limit. Exit status 1 where one of them did not succeed."""
    if shape not in SHAPES:
        raise typer.BadParameter(f"--shape: {shape}; known: {', '.join(SHAPES)}")
    out.mkdir(parents=True, exist_ok=True)
    session: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", "bench.gpu_session", *sys.argv[1:]]),
        "commit": _commit(),
        "device": device.value,
        "shape": shape,
        "quick": quick,
        "parts": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        parts = all_parts(device.value, shape, Path(scratch), quick=quick)
        if unknown := set(only) - {part.name for part in parts}:
            raise typer.BadParameter(
                f"--only: {', '.join(unknown)}; known: {', '.join(s.name for s in parts)}"
            )
        for part in parts:
            if only and part.name not in only:
                continue
            typer.echo(f"{part.name}: at most {part.seconds:.0f} s", err=True)
            outcome = run_part(part, Path(scratch))
            typer.echo(f"{part.name}: {outcome.status}, {outcome.seconds:.1f} s", err=True)
            session["parts"].append(asdict(outcome))
            _write(session, out)
    if any(part["status"] in ("failed", "timed out") for part in session["parts"]):
        raise typer.Exit(1)


def _write(session: dict[str, Any], out: Path) -> None:
    (out / "gpu_session.json").write_text(json.dumps(session, indent=2) + "\n", encoding="utf-8")
    (out / "gpu_session.md").write_text(page(session), encoding="utf-8")


def _commit() -> str:
    """Of the checkout, where it is one: a copy of its files has none."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "not known"
    return done.stdout.strip()


if __name__ == "__main__":
    typer.run(main)
