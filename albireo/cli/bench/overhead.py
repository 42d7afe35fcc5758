"""``albireo bench overhead``: what a step costs in addition to the model, in each mode in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from albireo.cli.terminal import fail
from albireo.local.redis_server import RedisServerError
from albireo.local.stack import StackError
from albireo.local.supervisor import GaveUp
from albireo.models import TINY
from albireo.tools.outputs import ChartTo, JsonTo, check_outputs, report
from bench.machine import machine
from bench.overhead.measure import Load, Mode, measure
from bench.overhead.report import chart, summarize, table

MODES = {
    "synchronous": Mode(synchronous=True, sampling="driver"),
    "overlapped": Mode(synchronous=False, sampling="driver"),
    "parallel sampling": Mode(synchronous=False, sampling="parallel"),
}
"""The paper's ablation. At a TP degree of 1 the last one equals the second, and is left out."""


def overhead(
    model: Annotated[Path, typer.Option(help="Directory of the checkpoint.")] = TINY,
    device: Annotated[str, typer.Option(help="cpu, cuda or sim.")] = "sim",
    cost_model: Annotated[str, typer.Option(help="For sim: a preset, or a TOML file.")] = "paper-32b",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "bfloat16",
    tp: Annotated[int, typer.Option(min=1, max=64, help="Ranks of the worker group.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Requests that decode side by side.")] = 64,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 16,
    outputs: Annotated[int, typer.Option(min=64, help="New tokens of each request.")] = 512,
    sink: Annotated[
        bool, typer.Option("--sink", help="The gateway sends no tokens: clients do not compete for cores.")
    ] = False,
    json_to: JsonTo = "",
    chart_to: ChartTo = None,
) -> None:
    """Starts a stack in each mode, puts load on it, and shows where the time of a step goes."""
    check_outputs(json_to, chart_to)
    load = Load(batch, prompt, outputs, sink)
    options = {"model": model, "device": device, "cost_model": cost_model, "dtype": dtype, "tp": tp}
    console = Console(stderr=True)
    modes: dict[str, dict[str, Any]] = {}
    try:
        for name, mode in MODES.items():
            if tp == 1 and mode.sampling == "parallel":
                continue
            with console.status(f"{name}: {batch} requests of {outputs} tokens"):
                modes[name] = summarize(measure(options, load, mode))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except (StackError, GaveUp, RedisServerError, RuntimeError) as error:
        fail(str(error))
    simulated = any(summary["simulated"] for summary in modes.values())
    what = f"simulated device ({cost_model})" if simulated else f"{model.name}, {device}, {dtype}"
    read_by = "a sink in the gateway" if sink else "a client"
    title = f"{what}, tp {tp}, batch {batch}, streams read by {read_by}"
    found = {"setup": title, "machine": machine(), "modes": modes}
    report(found, json_to, lambda: Console().print(table(modes, title, machine())))
    if chart_to is not None:
        chart(modes, title, chart_to)
