"""``albireo bench serve``: runs a load against a gateway and prints what it measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from albireo.cli.access_options import access_options, take_access
from albireo.cli.terminal import TARGET, Model, Target, fail
from albireo.cli.workload_options import read_options, workload_options
from albireo.tools.outputs import JsonTo, check_writable, report

if TYPE_CHECKING:
    from albireo.planning.workload import Workload
    from albireo.runtime.access import Access
    from albireo.v1 import control_pb2 as control
    from bench.serve.gpus import Sample
    from bench.serve.load import Record


@access_options
@workload_options
def serve(
    target: Target = TARGET,
    model_name: Model = "",
    warmup: Annotated[
        int, typer.Option(min=0, max=100_000, help="Requests beforehand that are not measured.")
    ] = 4,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="In place of that of --controls; 0 is greedy.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Most seconds of a request.")] = 600.0,
    json_to: JsonTo = "",
    **workload_given: Any,
) -> None:
    """Loads a stack over gRPC; prints throughput, TTFT, TPOT, inter-token latency and the power of GPUs.

    The exit status is 1 where a request failed.
    """
    access = take_access(workload_given)
    read_options(workload_given)  # a bad option is reported before the gateway is asked
    check_writable("--json", json_to)
    from bench.serve.gpus import summarize_gpus
    from bench.serve.report import summarize

    info = _model(target, model_name, access)
    workload = read_options(workload_given, info.max_model_len)
    controls = {} if temperature is None else {"temperature": temperature}
    records, samples = _run(target, access, workload, warmup, info.vocab_size, controls, timeout)
    setup = f"{info.model} ({info.dtype}, {info.device}, tp {info.tp})"
    summary = {"setup": f"{setup}, {workload.name}", **summarize(records)}
    gpu = summarize_gpus(samples, summary["seconds"], summary["output_tokens"])
    if gpu:
        summary["gpu"] = gpu
    report(summary, json_to, lambda: _show(summary))
    if summary["errors"]:
        most, count = max(summary["errors"].items(), key=lambda error: error[1])
        fail(f"{sum(summary['errors'].values())} of {len(records)} requests failed; {count}: {most}")


def _model(target: str, name: str, access: Access) -> control.ModelInfo:
    import grpc

    from albireo.client import Client, describe

    try:
        with Client(target, access) as client:
            return client.model_info(name)
    except grpc.RpcError as error:
        fail(describe(error))


def _run(
    target: str,
    access: Access,
    workload: Workload,
    warmup: int,
    vocab_size: int,
    controls: dict[str, float],
    timeout: float,
) -> tuple[list[Record], list[Sample]]:
    """Runs the warm-up, then the load with a progress bar; returns its records and samples of the GPUs."""
    import asyncio

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from bench.serve.gpus import watched_gpus
    from bench.serve.load import make_requests, run_workload, warm_up

    requests = make_requests(workload, vocab_size, controls=controls)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as progress:
        task = progress.add_task("requests", total=len(requests))

        def on_done(record: Record) -> None:
            progress.advance(task)

        async def run() -> tuple[list[Record], list[Sample]]:
            load: dict[str, Any] = {"timeout": timeout, "access": access}
            await warm_up(target, workload, warmup, vocab_size, controls=controls, **load)
            async with watched_gpus(target, access) as samples:
                records = await run_workload(target, workload, requests, on_done=on_done, **load)
            return records, samples

        return asyncio.run(run())


def _show(summary: dict[str, Any]) -> None:
    from rich.console import Console

    from bench.serve.report import table

    Console().print(table(summary, summary["setup"]))
