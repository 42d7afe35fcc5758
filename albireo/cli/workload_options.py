"""Which workload a command runs, as options; used by ``bench serve`` and by the planner's commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from albireo.planning.workload import MAX_REQUESTS, Sampling, Workload
from albireo.planning.workloads.arrivals import CONCURRENCY

PANEL = "Workload"

Command = TypeVar("Command", bound=Callable[..., None])


def _option(name: str, kind: Any, help_text: str, default: Any = None, **more: Any) -> inspect.Parameter:
    """An option; without a default it is None where it is not given."""
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            kind if default is not None else kind | None,
            typer.Option(help=help_text, rich_help_panel=PANEL, **more),
        ],
    )


OPTIONS = (
    _option(
        "workload",
        str,
        "A preset (chat, summarize, reasoning), or a file with one request a line, as JSON: prompt_tokens, "
        "output_tokens, and optionally arrival (seconds), prefix with prefix_tokens, conversation with think "
        "(seconds).",
    ),
    _option(
        "prompt_length", str, "fixed:N, uniform:A-B, normal:M,S or lognormal:MEDIAN,SIGMA; default fixed:64."
    ),
    _option("output_length", str, "Likewise."),
    _option("turns", int, "Requests of a conversation, each of which continues the one before.", min=1),
    _option("think_time", float, "Mean seconds from an answer to the next turn; default 30.", min=0),
    _option("concurrency", int, "Requests, or conversations, at a time, without --rate; default 16.", min=1),
    _option("rate", float, "Arrivals a second, Poisson; 0 goes by --concurrency.", min=0),
    _option(
        "burstiness",
        float,
        "Of --rate: 1, the default, is Poisson, below 1 has bursts, above 1 is more even.",
        min=0.01,
    ),
    _option(
        "num_requests",
        int,
        "Requests that are measured; default 64, or the whole file.",
        min=1,
        max=MAX_REQUESTS,
    ),
    _option(
        "controls",
        Sampling,
        "Of all requests; drawn: temperature, top-k, top-p; penalized: these and penalties.",
        "greedy",
    ),
    _option("seed", int, "Of lengths, prompts and arrivals.", 0, min=0),
)


def workload_options(command: Command) -> Command:
    """Gives ``command`` the options; it takes them as keyword arguments, for ``read_options``."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *OPTIONS])  # type: ignore[attr-defined]
    return command


def read_options(
    given: dict[str, Any], max_model_len: int | None = None, concurrency: int = CONCURRENCY
) -> Workload:
    """The workload that the options ask for. ``max_model_len``: drawn lengths are cut to it. ``concurrency``:
    of a closed loop, where the options do not say.

    Raises BadParameter with the option.
    """
    from albireo.planning.workloads.draw import make_workload
    from albireo.planning.workloads.file import read_workload
    from albireo.planning.workloads.presets import PRESETS

    asked = {name: value for name, value in given.items() if value is not None}
    source, asked["sampling"] = asked.pop("workload", ""), asked.pop("controls")
    try:
        if source and source not in PRESETS:
            for name in ("prompt_length", "output_length", "turns", "think_time"):
                if name in asked:
                    raise ValueError(f"{name}: {source} says it itself")
            workload = read_workload(Path(source), **asked, default_concurrency=concurrency)
            if max_model_len is not None and workload.longest > max_model_len:
                raise ValueError(
                    f"a request of {source} has {workload.longest} tokens, the context only {max_model_len}"
                )
            return workload
        if not asked.get("rate"):
            asked.setdefault("concurrency", concurrency)
        preset = PRESETS.get(source)
        lengths = (
            {"prompt_length": preset.prompt_length, "output_length": preset.output_length} if preset else {}
        )
        return make_workload(**{**lengths, **asked}, max_model_len=max_model_len)
    except OSError as error:
        known = ", ".join(PRESETS)
        raise typer.BadParameter(
            f"{source}: {error.strerror}; presets: {known}", param_hint="--workload"
        ) from None
    except ValueError as error:
        name, colon, message = str(error).partition(": ")
        if colon and name in given:
            raise typer.BadParameter(message, param_hint=f"--{name.replace('_', '-')}") from None
        is_file = source and source not in PRESETS
        raise typer.BadParameter(str(error), param_hint="--workload" if is_file else None) from None
