"""``albireo simulate``: one group in virtual time, from a cost model."""

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
from albireo.cli.workload_options import read_options, workload_options
from albireo.models import TINY
from albireo.tools.outputs import ChartTo, JsonTo, check_outputs, report

KV_MEMORY = (
    "Memory for KV blocks on each rank: a size (8GiB), or auto: what the device has left, at most twice what "
    "all slots can use; step times alone leave that much."
)
KV_TIER = "on each rank: a size (64GiB), none, or auto: as the device's file says."

if TYPE_CHECKING:
    from albireo.planning.result import SimulationResult
    from albireo.planning.simulation.group import Group
    from albireo.planning.workload import Workload


@workload_options
def simulate(
    model: ModelDirectory = TINY,
    device: Annotated[
        str, typer.Option(help="A device such as h100, step times such as paper-32b, or a TOML file.")
    ] = "h100",
    tp: Annotated[int, typer.Option(min=1, max=64, help="Ranks of the group.")] = 1,
    synchronous: Synchronous = False,
    sampling: Sampling = "auto",
    max_seqs: MaxSeqs = 256,
    max_model_len: MaxModelLen = 0,
    kv_memory: Annotated[str, typer.Option(help=KV_MEMORY)] = "auto",
    kv_host_memory: Annotated[str, typer.Option(help=f"Host memory for KV {KV_TIER}")] = "auto",
    kv_disk_size: Annotated[str, typer.Option(help=f"Disk for KV {KV_TIER}")] = "auto",
    max_num_batched_tokens: MaxBatchedTokens = 2048,
    prefill_chunk: PrefillChunk = 512,
    max_queue: Annotated[int, typer.Option(min=1, help="Most requests that wait; more are refused.")] = 1024,
    json_to: JsonTo = "",
    chart_to: ChartTo = None,
    **workload_given: Any,
) -> None:
    """Runs a workload on a described device in virtual time; reports throughput, TTFT and TPOT.

    Scheduler, rank 0 and submissions are real, step times are a cost model's. The same options give the same
    figures.
    """
    check_outputs(json_to, chart_to)
    check_simulation(max_seqs, max_num_batched_tokens)
    serving: dict[str, Any] = {
        "max_seqs": max_seqs,
        "synchronous": synchronous,
        "sampling": sampling,
        "max_queue": max_queue,
    }
    kv = {"kv_memory": kv_memory, "kv_host_memory": kv_host_memory, "kv_disk_size": kv_disk_size}
    serving["scheduler"] = {"max_num_batched_tokens": max_num_batched_tokens, "prefill_chunk": prefill_chunk}
    try:
        group = _group(model, device, tp, max_seqs, max_model_len, max_num_batched_tokens, kv)
        workload = read_options(workload_given, group.max_model_len)
        result = _run(group, workload, serving)
    except ValueError as error:
        refuse(error)
    mode = "synchronous" if synchronous else f"overlapped, sampling {sampling}"
    setup = f"{model.resolve().name} on {group.cost.name}, tp {tp}, {mode}"
    summary = {"setup": setup, "source": group.source, **_summary(result, workload)}
    report(summary, json_to, lambda: _show(summary))
    _draw(result, f"simulated: {setup}; {workload.name}", chart_to)


def _group(
    model: Path,
    device: str,
    tp: int,
    max_seqs: int,
    max_model_len: int,
    max_step_tokens: int,
    kv: dict[str, str],
) -> Group:
    from albireo.checkpoint.files import CheckpointError
    from albireo.planning.context import context_of
    from albireo.planning.simulation.group import described_group
    from worker_svc.model.config import ModelConfig

    try:
        config = ModelConfig.from_dir(model)
    except (CheckpointError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--model") from None
    try:
        config.check_tp(tp)
    except CheckpointError as error:
        raise typer.BadParameter(str(error), param_hint="--tp") from None
    return described_group(
        config,
        device,
        tp,
        max_seqs=max_seqs,
        max_model_len=context_of(config, max_model_len),
        max_step_tokens=max_step_tokens,
        **kv,
    )


def _run(group: Group, workload: Workload, serving: dict[str, Any]) -> SimulationResult:
    """Simulates with a progress bar. Raises ValueError."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from albireo.planning.simulation.run import simulate as run

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as progress:
        task = progress.add_task("simulated requests", total=len(workload.requests))
        return run(
            workload,
            group.cost,
            num_blocks=group.num_blocks,
            max_model_len=group.max_model_len,
            tiers=group.tiers,
            on_progress=lambda ended, _: progress.update(task, completed=ended),
            **serving,
        )


def _summary(result: SimulationResult, workload: Workload) -> dict[str, Any]:
    """Also reports on standard error how quick the simulation was: that is not the same each time."""
    from albireo.planning.report import summarize

    if result.cpu_seconds:
        speed = result.seconds / result.cpu_seconds
        typer.echo(
            f"{result.seconds:.1f} virtual seconds in {result.cpu_seconds:.1f} s of CPU time: "
            f"{speed:.3g} times as fast as real time",
            err=True,
        )
    return summarize(result, workload)


def _show(summary: dict[str, Any]) -> None:
    from rich.console import Console

    from albireo.planning.report import table

    Console().print(table(summary))


def _draw(result: SimulationResult, title: str, chart_to: Path | None) -> None:
    if chart_to is not None:
        from albireo.planning.chart import chart

        chart(result, title, chart_to)
