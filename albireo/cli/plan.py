"""``albireo plan``: how many groups of which TP degree serve a workload best on given devices."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from albireo.cli.terminal import fail, needs_matplotlib
from albireo.cli.workload_options import read_options, workload_options

if TYPE_CHECKING:
    from albireo.planning.choice.question import Question
    from albireo.planning.choice.recommendation import Recommendation
    from worker_svc.model.config import ModelConfig

WORKER_CONTEXT = 8192
"""The default of a worker's --max-model-len."""
WAVES = 6
"""Without --num-requests: so many requests for each of --concurrency."""
DEFAULT_CONCURRENCY = 256
DEFAULT_WORKLOAD = "chat"


@workload_options
def plan(
    model: Annotated[Path, typer.Option(help="Directory with the model's config.json; needs no weights.")],
    device: Annotated[str, typer.Option(help="A preset such as h100, or a TOML file.")] = "h100",
    devices: Annotated[int, typer.Option(min=1, max=64, help="How many, all joined by the link.")] = 8,
    ttft_p99: Annotated[
        float, typer.Option(min=0, help="Limit of the TTFT P99 in milliseconds; 0: none.")
    ] = 0,
    tpot_p99: Annotated[
        float, typer.Option(min=0, help="Limit of the TPOT P99 in milliseconds; 0: none.")
    ] = 0,
    synchronous: Annotated[bool, typer.Option("--synchronous", help="Without overlap, to compare.")] = False,
    sampling: Annotated[
        Literal["auto", "parallel", "driver"], typer.Option(help="Who samples, as of a worker.")
    ] = "auto",
    max_seqs: Annotated[int, typer.Option(min=1, max=65536, help="Slots of each group.")] = 256,
    max_model_len: Annotated[
        int, typer.Option(min=0, help="Most tokens of one request; 0: what the model takes, at most 8192.")
    ] = 0,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of one step.")] = 2048,
    prefill_chunk: Annotated[
        int, typer.Option(min=1, help="Most prompt tokens of one request in one step.")
    ] = 512,
    json_to: Annotated[str, typer.Option("--json", help="Also write JSON to this file; - prints it.")] = "",
    chart_to: Annotated[
        Path | None, typer.Option("--chart", help="Also draw a PNG (needs albireo[bench]).")
    ] = None,
    **workload: Any,
) -> None:
    """Simulates every split of the devices into groups, and says which is best, why, and how to run it."""
    if chart_to is not None:
        needs_matplotlib()
    question = _question(
        model,
        device,
        devices,
        (ttft_p99, tpot_p99),
        workload,
        max_model_len=max_model_len,
        serving={
            "max_seqs": max_seqs,
            "max_num_batched_tokens": max_num_batched_tokens,
            "prefill_chunk": prefill_chunk,
            "synchronous": synchronous,
            "sampling": sampling,
        },
    )
    found = _answer(question)
    _print(found, json_to, chart_to)


def _question(
    model: Path,
    device: str,
    devices: int,
    limits: tuple[float, float],
    workload: dict[str, Any],
    *,
    max_model_len: int,
    serving: dict[str, Any],
) -> Question:
    from albireo.checkpoint.files import CheckpointError
    from albireo.local.stack import legal_name
    from albireo.planning.choice.best import Limits
    from albireo.planning.choice.question import Question
    from albireo.planning.choice.serving import Serving
    from worker_svc.cost.device import Device
    from worker_svc.model.config import ModelConfig

    if serving["max_num_batched_tokens"] < serving["max_seqs"]:
        raise typer.BadParameter(
            "at least --max-seqs: each decoding row is a token", param_hint="--max-num-batched-tokens"
        )
    try:
        config = ModelConfig.from_dir(model)
    except (CheckpointError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--model") from None
    try:
        described = Device.load(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from None
    context = _context(config, max_model_len)
    ttft, tpot = (limit / 1e3 if limit else None for limit in limits)
    return Question(
        config,
        described,
        devices,
        read_options(_with_defaults(workload), context),
        Serving(model.resolve(), legal_name(model.resolve().name), max_model_len=context, **serving),
        Limits(ttft, tpot),
    )


def _context(config: ModelConfig, asked: int) -> int:
    if asked > config.max_positions:
        raise typer.BadParameter(
            f"{asked} tokens; the model takes {config.max_positions}", param_hint="--max-model-len"
        )
    return asked or min(WORKER_CONTEXT, config.max_positions)


def _with_defaults(workload: dict[str, Any]) -> dict[str, Any]:
    """A load that all slots of the devices can take, for long enough that most of the run is steady."""
    from albireo.planning.workloads.presets import PRESETS

    given = dict(workload)
    if all(given[name] is None for name in ("workload", "prompt_length", "output_length")):
        given["workload"] = DEFAULT_WORKLOAD
    if given["concurrency"] is None and not given["rate"]:
        given["concurrency"] = DEFAULT_CONCURRENCY
    if given["num_requests"] is None and given["workload"] in (None, *PRESETS):
        given["num_requests"] = WAVES * (given["concurrency"] or DEFAULT_CONCURRENCY)
    return given


def _answer(question: Question) -> Recommendation:
    """Simulates the splits, with a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from albireo.planning.choice.comparison import Job, compare
    from albireo.planning.choice.recommendation import recommend

    try:
        fit, unfit = question.splits()
    except ValueError as error:
        fail(str(error))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    names = ", ".join(str(fitting.split) for fitting in fit)
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        task = progress.add_task(f"simulating {names}: requests", total=None)
        outcomes = compare(
            [Job(fitting, question) for fitting in fit],
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    return recommend(question, outcomes, unfit)


def _print(found: Recommendation, json_to: str, chart_to: Path | None) -> None:
    from rich.console import Console

    from albireo.planning.choice.report import chart, lines, table

    text = json.dumps(found.as_json(), indent=2) + "\n"
    if json_to == "-":
        sys.stdout.write(text)
    else:
        console = Console()
        console.print(table(found))
        console.print("\n".join(lines(found)), markup=False, highlight=False, soft_wrap=True)
    if json_to not in ("", "-"):
        Path(json_to).write_text(text, encoding="utf-8")
    if chart_to is not None:
        chart(found, chart_to)
