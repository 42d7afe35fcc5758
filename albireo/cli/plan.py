"""``albireo plan``: how many groups of which TP degree serve a workload best on given devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from albireo.cli.group_options import (
    MaxBatchedTokens,
    MaxModelLen,
    MaxSeqs,
    ModelDirectory,
    PrefillChunk,
    Sampling,
    Synchronous,
    check_simulation,
    refuse,
)
from albireo.cli.terminal import fail
from albireo.cli.workload_options import read_options, workload_options
from albireo.tools.outputs import ChartTo, JsonTo, check_outputs, report

if TYPE_CHECKING:
    from albireo.planning.choice.question import Question
    from albireo.planning.choice.recommendation import Recommendation

DEFAULT_WORKLOAD = "chat"
DEFAULT_CONCURRENCY = 256
WAVES = 6
"""Without --num-requests: so many requests for each of --concurrency. The first and the last of them are not
in the figures."""

Milliseconds = Annotated[float, typer.Option(min=0, help="Limit in milliseconds; 0: none.")]


@workload_options
def plan(
    model: ModelDirectory,
    device: Annotated[str, typer.Option(help="A preset such as h100, or a TOML file.")] = "h100",
    devices: Annotated[int, typer.Option(min=1, max=64, help="How many, all joined by the link.")] = 8,
    ttft_p99: Milliseconds = 0,
    tpot_p99: Milliseconds = 0,
    synchronous: Synchronous = False,
    sampling: Sampling = "auto",
    max_seqs: MaxSeqs = 256,
    max_model_len: MaxModelLen = 0,
    max_num_batched_tokens: MaxBatchedTokens = 2048,
    prefill_chunk: PrefillChunk = 512,
    json_to: JsonTo = "",
    chart_to: ChartTo = None,
    **workload_given: Any,
) -> None:
    """Simulates every split of the devices into groups, and says which is best, why, and how to run it.

    Without options of the workload: 1536 requests of the preset chat, 256 at a time.
    """
    check_outputs(json_to, chart_to)
    check_simulation(max_seqs, max_num_batched_tokens)
    serving: dict[str, Any] = {
        "max_seqs": max_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "prefill_chunk": prefill_chunk,
        "synchronous": synchronous,
        "sampling": sampling,
    }
    limits = [limit / 1e3 if limit else None for limit in (ttft_p99, tpot_p99)]
    try:
        question = _question(model, device, devices, max_model_len, limits, serving, workload_given)
        found = _answer(question)
    except ValueError as error:
        refuse(error)
    report(found.as_json(), json_to, lambda: _show(found))
    _draw(found, chart_to)


def _question(
    model: Path,
    device: str,
    devices: int,
    max_model_len: int,
    limits: list[float | None],
    serving: dict[str, Any],
    workload: dict[str, Any],
) -> Question:
    """Raises ValueError."""
    from albireo.checkpoint.files import CheckpointError
    from albireo.local.stack import legal_name
    from albireo.planning.choice.best import Limits
    from albireo.planning.choice.question import Question
    from albireo.planning.choice.serving import Serving
    from albireo.planning.context import context_of
    from worker_svc.cost.device import Device
    from worker_svc.model.config import ModelConfig

    try:
        config = ModelConfig.from_dir(model)
    except (CheckpointError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--model") from None
    try:
        described = Device.load(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from None
    context = context_of(config, max_model_len)
    directory = model.resolve()
    return Question(
        config,
        described,
        devices,
        read_options(_with_defaults(workload), context, DEFAULT_CONCURRENCY),
        Serving(
            directory,
            legal_name(directory.name),
            max_model_len=context,
            device=described.kind,
            dtype=described.dtype,
            **serving,
        ),
        Limits(*limits),
    )


def _with_defaults(workload: dict[str, Any]) -> dict[str, Any]:
    """A load for all slots of a group of all devices, for so long that most of the run is steady.

    Raises ValueError for a concurrency that would take too many requests.
    """
    from albireo.planning.workload import MAX_REQUESTS
    from albireo.planning.workloads.presets import PRESETS

    given = dict(workload)
    if all(given[name] is None for name in ("workload", "prompt_length", "output_length")):
        given["workload"] = DEFAULT_WORKLOAD
    if given["num_requests"] is None and given["workload"] in (None, *PRESETS):
        concurrency = given["concurrency"] or DEFAULT_CONCURRENCY
        if WAVES * concurrency > MAX_REQUESTS:
            raise ValueError(
                f"concurrency: {concurrency}: at most {MAX_REQUESTS // WAVES} without --num-requests"
            )
        given["num_requests"] = WAVES * concurrency
    return given


def _answer(question: Question) -> Recommendation:
    """Simulates the splits, with a progress bar. Raises ValueError where the model fits at no TP degree."""
    from concurrent.futures.process import BrokenProcessPool

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from albireo.planning.choice.comparison import Job, compare
    from albireo.planning.choice.recommendation import recommend

    fitting, unfit = question.splits()
    jobs = [Job(fit, question) for fit in fitting]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as progress:
        names = ", ".join(str(fit.split) for fit in fitting)
        task = progress.add_task(f"simulated requests of {names}", total=None)
        try:
            outcomes = compare(jobs, lambda done, total: progress.update(task, completed=done, total=total))
        except BrokenProcessPool:
            fail("a process that simulated a split was killed: is there enough memory?")
    return recommend(question, outcomes, unfit)


def _show(found: Recommendation) -> None:
    from rich.console import Console

    from albireo.planning.choice.report import lines, table

    console = Console()
    console.print(table(found))
    console.print("\n".join(lines(found)), markup=False, highlight=False, soft_wrap=True)


def _draw(found: Recommendation, chart_to: Path | None) -> None:
    if chart_to is not None:
        from albireo.planning.choice.report import chart

        chart(found, chart_to)
