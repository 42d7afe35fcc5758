"""``albireo generate``: one request, streamed to the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from albireo.cli.terminal import TARGET, Answer, Model, Stream, StreamFailed, Target, fail

if TYPE_CHECKING:
    from albireo.v1 import inference_pb2 as api

# What the fields of the request can hold; what makes sense within that, the server knows.
UINT32 = {"min": 0, "max": 2**32 - 1}
UINT64 = {"min": 0, "max": 2**64 - 1}


def _sampling(help_text: str, **bounds: Any) -> Any:
    return typer.Option(help=help_text, rich_help_panel="Sampling (default: the server's)", **bounds)


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
    max_tokens: Annotated[int | None, _sampling("Most new tokens.", **UINT32)] = None,
    min_tokens: Annotated[int | None, _sampling("No end before so many tokens.", **UINT32)] = None,
    temperature: Annotated[float | None, _sampling("0 is greedy.")] = None,
    top_k: Annotated[int | None, _sampling("Only the k most likely; 0 is off.", **UINT32)] = None,
    top_p: Annotated[float | None, _sampling("Only the most likely that add up to p.")] = None,
    min_p: Annotated[float | None, _sampling("Only those at least so likely, relative to the best.")] = None,
    typical_p: Annotated[float | None, _sampling("Only the most typical that add up to p.")] = None,
    repetition_penalty: Annotated[
        float | None, _sampling("Above 1: tokens of prompt and output are less likely again.")
    ] = None,
    presence_penalty: Annotated[
        float | None, _sampling("Taken off the logit of each token that the output has.")
    ] = None,
    frequency_penalty: Annotated[
        float | None, _sampling("Likewise, for each time that the output has it.")
    ] = None,
    logit_bias: Annotated[
        list[str] | None, _sampling("ID=BIAS, added to that token's logit; more than once.")
    ] = None,
    allowed_token_ids: Annotated[
        list[int] | None, _sampling("Draw only this token; more than once.", **UINT32)
    ] = None,
    bad_token_ids: Annotated[
        list[int] | None, _sampling("Never draw this token; more than once.", **UINT32)
    ] = None,
    seed: Annotated[int | None, _sampling("Same seed, same tokens.", **UINT64)] = None,
    stop: Annotated[list[str] | None, _sampling("End before this text; may be given more than once.")] = None,
    stop_token_ids: Annotated[
        list[int] | None, _sampling("End with this token; more than once.", **UINT32)
    ] = None,
    include_stop: Annotated[
        bool, _sampling("Show the stop string, or the text of the stop token, as well.")
    ] = False,
    ignore_eos: Annotated[bool, _sampling("Go on past the model's end tokens.")] = False,
    n: Annotated[int | None, _sampling("So many answers, each shown when it has ended.", **UINT32)] = None,
    logprobs: Annotated[
        int | None, _sampling("With --json: of each token and of so many most likely ones.", **UINT32)
    ] = None,
    prompt_logprobs: Annotated[
        int | None, _sampling("With --json: likewise for the prompt.", **UINT32)
    ] = None,
) -> None:
    """Streams an answer, or several: text to standard output, TTFT and tokens/s to standard error."""
    if not as_json and (logprobs, prompt_logprobs) != (None, None):
        raise typer.BadParameter("--logprobs and --prompt-logprobs show in --json only")
    biases = None if logit_bias is None else dict(map(_bias, logit_bias))
    stream = _stream(
        target,
        {
            "prompt": prompt,
            "raw": raw,
            "timeout": timeout,
            "model": model_name or None,
            "request_id": request_id,
            "priority": priority,
            "tenant": tenant,
            "max_tokens": max_tokens,
            "min_tokens": min_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "typical_p": typical_p,
            "repetition_penalty": repetition_penalty,
            "presence_penalty": presence_penalty,
            "frequency_penalty": frequency_penalty,
            "logit_bias": biases,
            "allowed_token_ids": allowed_token_ids,
            "bad_token_ids": bad_token_ids,
            "seed": seed,
            "stop": stop,
            "stop_token_ids": stop_token_ids,
            "include_stop": include_stop or None,
            "ignore_eos": ignore_eos or None,
            "n": n,
            "logprobs": logprobs,
            "prompt_logprobs": prompt_logprobs,
        },
        show=not as_json,
    )
    if as_json:
        typer.echo(json.dumps(_report(stream)))
    else:
        if len(stream.answers) == 1:
            typer.echo()
        typer.echo(stream.summary(), err=True)
    failed = {index: answer.error for index, answer in enumerate(stream.answers) if answer.error}
    if failed:
        fail("; ".join(f"answer {index}: {error}" for index, error in failed.items()))


def _stream(target: str, options: dict[str, Any], *, show: bool) -> Stream:
    """The whole stream; ends the command on an error, exit status 1."""
    from albireo.client import Client

    stream = Stream()
    try:
        with Client(target) as client:
            stream.read(client.generate(**options), show=show)
    except StreamFailed as error:
        if show and len(stream.answers) == 1 and stream.text:
            typer.echo()
        fail(str(error))
    except ValueError as error:
        fail(str(error))
    return stream


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise typer.BadParameter(f"--logit-bias: {text!r} is not ID=BIAS") from None


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
