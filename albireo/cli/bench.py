"""``albireo bench``: measurements."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from albireo.bench_serve.gpus import Sample, summarize_gpus, watched_gpus
from albireo.bench_serve.lengths import Draw, parse_lengths
from albireo.bench_serve.load import Record, make_requests, run_load
from albireo.bench_serve.report import summarize, table
from albireo.cli.overhead import overhead
from albireo.cli.sampling import sampling
from albireo.cli.terminal import TARGET, Target, fail
from albireo.client import Client, describe

app = typer.Typer(help="Measurements.", no_args_is_help=True)
app.command()(overhead)
app.command()(sampling)


def _lengths(option: str, text: str) -> Draw:
    try:
        return parse_lengths(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


@app.command()
def serve(
    target: Target = TARGET,
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
    """Loads a stack over gRPC; prints throughput, TTFT, TPOT and inter-token latency, and what GPUs drew."""
    lengths = _lengths("--prompt-length", prompt_length), _lengths("--output-length", output_length)
    try:
        with Client(target) as client:
            info = client.model_info()
    except grpc.RpcError as error:
        fail(describe(error))
    requests = make_requests(
        warmup + num_requests,
        *lengths,
        vocab_size=info.vocab_size,
        max_model_len=info.max_model_len,
        seed=seed,
        temperature=temperature,
    )
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        task = progress.add_task("requests", total=num_requests)

        def on_done(record: Record) -> None:
            progress.advance(task)

        async def run() -> tuple[list[Record], list[Sample]]:
            await run_load(target, requests[:warmup], concurrency=concurrency, timeout=timeout)
            async with watched_gpus(target) as samples:
                records = await run_load(
                    target,
                    requests[warmup:],
                    concurrency=0 if rate else concurrency,
                    rate=rate,
                    seed=seed,
                    timeout=timeout,
                    on_done=on_done,
                )
            return records, samples

        records, samples = asyncio.run(run())
    arrivals = f"{rate:g} requests/s" if rate else f"{concurrency} at a time"
    setup = f"{info.model} ({info.dtype}, {info.device}, tp {info.tp})"
    summary = {
        "setup": f"{setup}, {arrivals}, prompts {prompt_length}, outputs {output_length}",
        **summarize(records),
    }
    gpu = summarize_gpus(samples, summary["seconds"], summary["output_tokens"])
    if gpu:
        summary["gpu"] = gpu
    if json_to == "-":
        sys.stdout.write(json.dumps(summary, indent=2) + "\n")
        return
    Console().print(table(summary, summary["setup"]))
    if json_to:
        Path(json_to).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
