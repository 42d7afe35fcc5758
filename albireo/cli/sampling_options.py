"""The sampling controls of a request as options of a command; used by ``albireo generate``.

Each option has the name of a field of ``SamplingOptions``. Bounds are what the field can hold: the server
checks what makes sense within them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

PANEL = "Sampling (default: the server's)"
UINT32 = {"min": 0, "max": 2**32 - 1}
UINT64 = {"min": 0, "max": 2**64 - 1}

Command = TypeVar("Command", bound=Callable[..., None])


def _option(name: str, kind: Any, help_text: str, **bounds: Any) -> inspect.Parameter:
    """A flag where ``kind`` is bool, else an option that is None where it is not given."""
    option = typer.Option(help=help_text, rich_help_panel=PANEL, **bounds)
    flag = kind is bool
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if flag else None,
        annotation=Annotated[kind if flag else kind | None, option],
    )


CONTROLS = (
    _option("max_tokens", int, "Most new tokens.", **UINT32),
    _option("min_tokens", int, "No end before so many tokens.", **UINT32),
    _option("temperature", float, "0 is greedy."),
    _option("top_k", int, "Only the k most likely; 0 is off.", **UINT32),
    _option("top_p", float, "Only the most likely that add up to p."),
    _option("min_p", float, "Only those at least so likely, relative to the best."),
    _option("typical_p", float, "Only the most typical that add up to p."),
    _option("repetition_penalty", float, "Above 1: tokens of prompt and output are less likely again."),
    _option("presence_penalty", float, "Taken off the logit of each token that the output has."),
    _option("frequency_penalty", float, "Likewise, for each time that the output has it."),
    _option("logit_bias", list[str], "ID=BIAS, added to that token's logit; more than once."),
    _option("allowed_token_ids", list[int], "Draw only this token; more than once.", **UINT32),
    _option("bad_token_ids", list[int], "Never draw this token; more than once.", **UINT32),
    _option("seed", int, "Same seed, same tokens.", **UINT64),
    _option("stop", list[str], "End before this text; may be given more than once."),
    _option("stop_token_ids", list[int], "End with this token; more than once.", **UINT32),
    _option("include_stop", bool, "Show the stop string, or the text of the stop token, as well."),
    _option("ignore_eos", bool, "Go on past the model's end tokens."),
    _option("n", int, "So many answers, each shown when it has ended.", **UINT32),
    _option("logprobs", int, "With --json: of each token and of so many most likely ones.", **UINT32),
    _option("prompt_logprobs", int, "With --json: likewise for the prompt.", **UINT32),
)


def sampling_options(command: Command) -> Command:
    """Gives ``command`` an option for each control; it takes their values as keyword arguments."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *CONTROLS])  # type: ignore[attr-defined]
    return command


def given_controls(values: dict[str, Any]) -> dict[str, Any]:
    """Fields of ``SamplingOptions`` for those that were given. Raises BadParameter for a malformed bias."""
    given = {name: value for name, value in values.items() if value is not None and value is not False}
    if "logit_bias" in given:
        given["logit_bias"] = dict(map(_bias, given["logit_bias"]))
    return given


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise typer.BadParameter(f"--logit-bias: {text!r} is not ID=BIAS") from None
