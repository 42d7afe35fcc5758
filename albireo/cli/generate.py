"""``albireo generate``: one request, streamed to the terminal."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from albireo.cli.terminal import TARGET, Target, stream_answer
from albireo.client import Client

# What the fields of the request can hold; what makes sense within that, the server knows.
UINT32 = {"min": 0, "max": 2**32 - 1}
UINT64 = {"min": 0, "max": 2**64 - 1}


def _sampling(help_text: str, **bounds: Any) -> Any:
    return typer.Option(help=help_text, rich_help_panel="Sampling (default: the server's)", **bounds)


def generate(
    prompt: Annotated[str, typer.Argument(help="The question, or with --raw the text to go on with.")],
    target: Target = TARGET,
    raw: Annotated[bool, typer.Option("--raw", help="Plain text instead of the chat template.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end instead.")
    ] = False,
    timeout: Annotated[float | None, typer.Option(min=0, help="Deadline in seconds.")] = None,
    request_id: Annotated[str | None, typer.Option(help="Id of the request.")] = None,
    priority: Annotated[int | None, typer.Option(min=-100, max=100, help="Lower runs earlier.")] = None,
    max_tokens: Annotated[int | None, _sampling("Most new tokens.", **UINT32)] = None,
    min_tokens: Annotated[int | None, _sampling("No end before so many tokens.", **UINT32)] = None,
    temperature: Annotated[float | None, _sampling("0 is greedy.")] = None,
    top_k: Annotated[int | None, _sampling("Only the k most likely; 0 is off.", **UINT32)] = None,
    top_p: Annotated[float | None, _sampling("Only the most likely that add up to p.")] = None,
    min_p: Annotated[float | None, _sampling("Only those at least so likely, relative to the best.")] = None,
    seed: Annotated[int | None, _sampling("Same seed, same tokens.", **UINT64)] = None,
    stop: Annotated[list[str] | None, _sampling("End before this text; may be given more than once.")] = None,
    ignore_eos: Annotated[bool, _sampling("Go on past the model's end tokens.")] = False,
) -> None:
    """Streams one answer: text to standard output, TTFT and tokens/s to standard error."""
    with Client(target) as client:
        events = client.generate(
            prompt,
            raw=raw,
            timeout=timeout,
            request_id=request_id,
            priority=priority,
            max_tokens=max_tokens,
            min_tokens=min_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            stop=stop,
            ignore_eos=ignore_eos or None,
        )
        answer = stream_answer(events, show=not as_json)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "text": answer.text,
                    "tokens": answer.tokens,
                    "finish": answer.finish,
                    "ttft_seconds": answer.ttft,
                    "decode_seconds": answer.seconds,
                }
            )
        )
    else:
        typer.echo()
        typer.echo(answer.summary(), err=True)
