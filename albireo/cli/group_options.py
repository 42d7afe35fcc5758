"""Options of the commands that simulate groups: the model, and what a group and its scheduler take."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from albireo.cli.terminal import fail

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


def check_simulation(max_seqs: int, max_num_batched_tokens: int) -> None:
    """Ends the command before it has simulated anything where it could not. Raises BadParameter where a step
    could not hold all slots."""
    if importlib.util.find_spec("greenlet") is None:
        fail("virtual time needs greenlet: pip install 'albireo[simulation]'")
    if max_num_batched_tokens < max_seqs:
        raise typer.BadParameter(
            f"{max_seqs} slots, and {max_num_batched_tokens} tokens of a step: each decoding row is a token",
            param_hint=["--max-seqs", "--max-num-batched-tokens"],
        )


def refuse(error: ValueError) -> NoReturn:
    """``error`` begins with the option's name where it is of one."""
    name, colon, message = str(error).partition(": ")
    if colon and name.isidentifier():
        raise typer.BadParameter(message, param_hint=f"--{name.replace('_', '-')}") from None
    raise typer.BadParameter(str(error)) from None
