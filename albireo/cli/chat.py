"""``albireo chat``: a conversation in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from albireo.cli.access_options import access_options, take_access
from albireo.cli.answers import Stream, StreamFailed
from albireo.cli.terminal import TARGET, Model, Target

if TYPE_CHECKING:
    from albireo.client import Client, Message


@access_options
def chat(
    target: Target = TARGET,
    model_name: Model = "",
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, max=2**32 - 1, help="Most tokens of one answer.")
    ] = None,
    **access_given: Any,
) -> None:
    """Talks with the model; Ctrl-C stops an answer, Ctrl-D leaves.

    A stopped answer stays in the conversation as far as it came; a question that failed does not. The exit
    status is 1 where the last question failed.
    """
    from albireo.client import Client

    options = {"model": model_name or None, "temperature": temperature, "max_tokens": max_tokens}
    turns: list[Message] = []
    failed = False
    with Client(target, take_access(access_given)) as client:
        while (question := _question()) is not None:
            if question:
                failed = not _answer(client, turns, question, options)
    if failed:
        raise typer.Exit(1)


def _question() -> str | None:
    """The next line; None at the end of the input, and for Ctrl-C at the prompt: the conversation is over."""
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        typer.echo()
        return None


def _answer(client: Client, turns: list[Message], question: str, options: dict[str, Any]) -> bool:
    """Asks, shows the answer as it comes, and adds both to the conversation. False where it failed."""
    stream, asked = Stream(), ("user", question)
    try:
        stream.read(client.generate([*turns, asked], **options))
        typer.echo()
    except KeyboardInterrupt:
        typer.echo("\n(stopped)")
        if not stream.text:
            return True
    except (StreamFailed, ValueError) as error:
        if stream.text:
            typer.echo()
        typer.echo(f"albireo: {error}", err=True)
        return False
    turns += [asked, ("assistant", stream.text)]
    return True
