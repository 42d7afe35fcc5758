"""``albireo bench serve``: runs a load against a gateway and prints what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from albireo.cli.terminal import TARGET, Model, Target, fail

if TYPE_CHECKING:
    from albireo.v1 import control_pb2 as control
    from albireo.v1 import inference_pb2 as api
    from bench.serve.gpus import Sample
    from bench.serve.lengths import Draw
    from bench.serve.load import Record


def serve(
    target: Target = TARGET,
    model_name: Model = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time, without --rate.")] = 16,
    rate: Annotated[
        float, typer.Option(min=0, help="Poisson arrivals a second; 0 goes by --concurrency.")
    ] = 0,
    num_requests: Annotated[int, typer.Option(min=1, help="Requests that are measured.")] = 64,
    warmup: Annotated[int, typer.Option(min=0, help="Requests beforehand that are not.")] = 4,
    prompt_length: Annotated[str, typer.Option(help="fixed:N, uniform:A-B or normal:M,S.")] = "fixed:64",
    output_length: Annotated[str, typer.Option(help="Likewise.")] = "fixed:64",
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of lengths, prompts and arrivals.")] = 0,
    timeout: Annotated[float, typer.Option(min=0, help="Most seconds of a request.")] = 600.0,
    json_to: Annotated[str, typer.Option("--json", help="Also write JSON to this file; - prints it.")] = "",
) -> None:
    """Loads a stack over gRPC; prints throughput, TTFT, TPOT, inter-token latency and the power of GPUs.

    The exit status is 1 where a request failed.
    """
    lengths = _lengths("--prompt-length", prompt_length), _lengths("--output-length", output_length)
    _check_writable(json_to)
    from bench.serve.gpus import summarize_gpus
    from bench.serve.load import make_requests
    from bench.serve.report import summarize

    info = _model(target, model_name)
    requests = make_requests(
        warmup + num_requests,
        *lengths,
        vocab_size=info.vocab_size,
        max_model_len=info.max_model_len,
        seed=seed,
        temperature=temperature,
    )
    load = {"concurrency": 0 if rate else concurrency, "rate": rate, "seed": seed, "timeout": timeout}
    records, samples = _run(target, requests[:warmup], requests[warmup:], concurrency, load)
    arrivals = f"{rate:g} requests/s" if rate else f"{concurrency} at a time"
    setup = f"{info.model} ({info.dtype}, {info.device}, tp {info.tp})"
    summary = {
        "setup": f"{setup}, {arrivals}, prompts {prompt_length}, outputs {output_length}",
        **summarize(records),
    }
    gpu = summarize_gpus(samples, summary["seconds"], summary["output_tokens"])
    if gpu:
        summary["gpu"] = gpu
    _print(summary, json_to)
    if summary["errors"]:
        most, count = max(summary["errors"].items(), key=lambda error: error[1])
        fail(f"{sum(summary['errors'].values())} of {num_requests} requests failed; {count}: {most}")


def _check_writable(json_to: str) -> None:
    """Checked before the run, so that its figures are not lost; keeps the file. Raises BadParameter."""
    if json_to in ("", "-"):
        return
    try:
        Path(json_to).open("ab").close()
    except OSError as error:
        raise typer.BadParameter(f"{json_to}: {error.strerror}", param_hint="--json") from None


def _lengths(option: str, text: str) -> Draw:
    from bench.serve.lengths import parse_lengths

    try:
        return parse_lengths(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _model(target: str, name: str) -> control.ModelInfo:
    import grpc

    from albireo.client import Client, describe

    try:
        with Client(target) as client:
            return client.model_info(name)
    except grpc.RpcError as error:
        fail(describe(error))


def _run(
    target: str,
    warmup: list[api.GenerateRequest],
    requests: list[api.GenerateRequest],
    concurrency: int,
    load: dict[str, Any],
) -> tuple[list[Record], list[Sample]]:
    """Runs the warm-up, then the load with a progress bar; returns its records and samples of the GPUs."""
    import asyncio

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from bench.serve.gpus import watched_gpus
    from bench.serve.load import run_load

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as progress:
        task = progress.add_task("requests", total=len(requests))

        def on_done(record: Record) -> None:
            progress.advance(task)

        async def run() -> tuple[list[Record], list[Sample]]:
            await run_load(target, warmup, concurrency=concurrency, timeout=load["timeout"])
            async with watched_gpus(target) as samples:
                records = await run_load(target, requests, **load, on_done=on_done)
            return records, samples

        return asyncio.run(run())


def _print(summary: dict[str, Any], json_to: str) -> None:
    from rich.console import Console

    from bench.serve.report import table

    text = json.dumps(summary, indent=2) + "\n"
    if json_to == "-":
        sys.stdout.write(text)
        return
    Console().print(table(summary, summary["setup"]))
    if json_to:
        Path(json_to).write_text(text, encoding="utf-8")
