"""``albireo chat``: a conversation in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from albireo.cli.terminal import TARGET, Target, read_stream
from albireo.client import Client, Turn


def chat(
    target: Target = TARGET,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, max=2**32 - 1, help="Most tokens of one answer.")
    ] = None,
) -> None:
    """Talks with the model; an empty line or Ctrl-D ends the conversation."""
    turns: list[Turn] = []
    with Client(target) as client:
        while True:
            try:
                question = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                typer.echo()
                return
            if not question:
                return
            turns.append(("user", question))
            events = client.generate(turns, temperature=temperature, max_tokens=max_tokens)
            [answer] = read_stream(events).answers
            typer.echo()
            turns.append(("assistant", answer.text))
