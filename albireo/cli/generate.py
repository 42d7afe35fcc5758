"""``albireo generate``: one request, streamed to the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from albireo.cli.access_options import access_options, take_access
from albireo.cli.answers import Answer, Stream, StreamFailed
from albireo.cli.sampling_options import given_controls, sampling_options
from albireo.cli.terminal import TARGET, Model, Target, fail

if TYPE_CHECKING:
    from albireo.runtime.access import Access
    from albireo.v1 import inference_pb2 as api


@access_options
@sampling_options
def generate(
    prompt: Annotated[str, typer.Argument(help="The question, or with --raw the text to go on with.")],
    target: Target = TARGET,
    model_name: Model = "",
    raw: Annotated[bool, typer.Option("--raw", help="Plain text instead of the chat template.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end instead.")
    ] = False,
    timeout: Annotated[float | None, typer.Option(min=0, help="Deadline in seconds.")] = None,
    request_id: Annotated[str | None, typer.Option(help="Id of the request.")] = None,
    priority: Annotated[int | None, typer.Option(min=-100, max=100, help="Lower runs earlier.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Whom the request is counted for.")] = None,
    **controls: Any,
) -> None:
    """Streams an answer, or several: text to standard output, TTFT and tokens/s to standard error."""
    access = take_access(controls)
    sampling = given_controls(controls)
    if not as_json and not sampling.keys().isdisjoint(("logprobs", "prompt_logprobs")):
        raise typer.BadParameter("--logprobs and --prompt-logprobs show in --json only")
    request = {
        "prompt": prompt,
        "raw": raw,
        "timeout": timeout,
        "model": model_name or None,
        "request_id": request_id,
        "priority": priority,
        "tenant": tenant,
        **sampling,
    }
    stream = _stream(target, access, request, show=not as_json)
    _print(stream, as_json=as_json)
    failed = {index: answer.error for index, answer in enumerate(stream.answers) if answer.error}
    if failed:
        fail("; ".join(f"answer {index}: {error}" for index, error in failed.items()))


def _stream(target: str, access: Access, options: dict[str, Any], *, show: bool) -> Stream:
    """The whole stream; ends the command on an error, exit status 1."""
    from albireo.client import Client

    stream = Stream()
    try:
        with Client(target, access) as client:
            stream.read(client.generate(**options), show=show)
    except StreamFailed as error:
        if show and len(stream.answers) == 1 and stream.text:
            typer.echo()
        fail(str(error))
    except ValueError as error:
        fail(str(error))
    return stream


def _print(stream: Stream, *, as_json: bool) -> None:
    """What is left to print at the end of a stream whose text has been shown, or all of it as JSON."""
    if as_json:
        typer.echo(json.dumps(_report(stream)))
        return
    if len(stream.answers) == 1:
        typer.echo()
    typer.echo(stream.summary(), err=True)


def _report(stream: Stream) -> dict[str, Any]:
    report: dict[str, Any] = {
        "answers": [_answer(answer) for answer in stream.answers],
        "simulated": stream.simulated,
        "ttft_seconds": stream.ttft,
        "decode_seconds": stream.seconds,
    }
    if stream.prompt_logprobs:
        report["prompt_logprobs"] = _logprobs(stream.prompt_logprobs)
    return report


def _answer(answer: Answer) -> dict[str, Any]:
    report: dict[str, Any] = {
        "text": answer.text,
        "tokens": answer.tokens,
        "finish": answer.finish,
        "seed": answer.seed,
    }
    if answer.error:
        report["error"] = answer.error
    if answer.logprobs:
        report["logprobs"] = _logprobs(answer.logprobs)
    return report


def _logprobs(entries: list[api.TokenLogprobs]) -> list[dict[str, Any]]:
    return [
        {"logprob": entry.logprob, "top": dict(zip(entry.top_ids, entry.top_logprobs, strict=True))}
        for entry in entries
    ]
