"""What telemetry costs: the same load on two stacks in turn, one with everything off, one with everything on.

    python -m bench.telemetry_cost

On means the defaults: a tenth of the requests traced and sent to a collector, metrics too, every service's
Prometheus endpoint scraped every few seconds.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from albireo.local.ports import free_port
from albireo.local.stack import Stack, StackError, StackSettings
from albireo.models import TINY
from bench.otlp_receiver import OtlpReceiver
from bench.overhead.measure import Load, Measured, measure_at
from bench.serve.report import machine

SERVICES = ("GATEWAY", "SCHEDULER", "WORKER")
MEASURES: dict[str, Callable[[Measured, Load], float]] = {
    "tokens/s": lambda found, load: load.batch * load.outputs / found.seconds,
    "visible, median us": lambda found, load: _microseconds(found, "visible", 50),
    "visible, p99 us": lambda found, load: _microseconds(found, "visible", 99),
    "period, median us": lambda found, load: _microseconds(found, "period", 50),
    "t1, median us": lambda found, load: _microseconds(found, "t1", 50),
    "t5, median us": lambda found, load: _microseconds(found, "t5", 50),
}


def main(
    model: Annotated[Path, typer.Option(help="Directory of the checkpoint.")] = TINY,
    device: Annotated[str, typer.Option(help="cpu, cuda or sim.")] = "sim",
    cost_model: Annotated[str, typer.Option(help="For sim: a preset, or a TOML file.")] = "fast-5ms",
    batch: Annotated[int, typer.Option(min=1, help="Requests that decode side by side.")] = 256,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 16,
    outputs: Annotated[int, typer.Option(min=64, help="New tokens of each request.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="How often both are measured in turn.")] = 5,
    scrape_seconds: Annotated[float, typer.Option(min=0.1, help="From one scrape to the next.")] = 5.0,
    sink: Annotated[bool, typer.Option(help="The gateway sends no tokens: clients do not compete.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prints each measure, round by round, off and on, and how the ratios on / off are spread."""
    load = Load(batch, prompt, outputs, sink)
    options = {"model": model, "device": device, "cost_model": cost_model}
    rounds_found: list[dict[str, dict[str, float]]] = []
    with ExitStack() as running:
        receiver = running.enter_context(OtlpReceiver())
        targets = {
            "off": running.enter_context(_serving(options, load)),
            "on": running.enter_context(_serving(options, load, receiver, scrape_seconds)),
        }
        for target in targets.values():
            measure_at(target, load)
        for number in range(1, rounds + 1):
            # Whoever comes second finds the machine as the first left it: they take turns in that too.
            order = list(targets) if number % 2 else list(reversed(targets))
            found = {name: measure_at(targets[name], load, seed=number) for name in order}
            rounds_found.append(
                {name: {what: of(found[name], load) for what, of in MEASURES.items()} for name in targets}
            )
        spans = len(receiver.spans)
    if not spans:
        sys.exit("no span arrived: telemetry was not on")
    ratios = {what: [found["on"][what] / found["off"][what] for found in rounds_found] for what in MEASURES}
    quartiles = {what: [float(q) for q in np.percentile(ratios[what], [25, 50, 75])] for what in MEASURES}
    setup = f"{machine()}; {device} {cost_model}, {batch} requests at once, {prompt} + {outputs} tokens"
    if as_json:
        print(json.dumps({"setup": setup, "rounds": rounds_found, "quartiles": quartiles}, indent=2))
        return
    table = Table("round", *(f"{what} {name}" for what in MEASURES for name in targets), caption=setup)
    for number, values in enumerate(rounds_found, 1):
        table.add_row(str(number), *(f"{values[n][what]:.0f}" for what in MEASURES for n in targets))
    medians = {
        what: [float(np.median([found[name][what] for found in rounds_found])) for name in targets]
        for what in MEASURES
    }
    told = [
        f"{what}: medians of the rounds "
        f"{', '.join(f'{n} {value:.0f}' for n, value in zip(targets, medians[what], strict=True))}; "
        f"on / off round by round {median:.3f} (quartiles {low:.3f} and {high:.3f})"
        for what, (low, median, high) in quartiles.items()
    ]
    Console(width=160).print(table, *told, sep="\n")


def _microseconds(found: Measured, name: str, percentile: float) -> float:
    return float(np.percentile([getattr(step, name) for step in found.steps], percentile)) * 1e6


@contextmanager
def _serving(
    options: dict[str, Any], load: Load, receiver: OtlpReceiver | None = None, scrape_seconds: float = 0.0
) -> Iterator[str]:
    """Target of a stack of its own; with a receiver, telemetry is on."""
    environment = {
        "ALBIREO_WORKER_MAX_SEQS": str(load.batch),
        "ALBIREO_SCHEDULER_MAX_NUM_SEQS": str(load.batch),
        "ALBIREO_GATEWAY_SINK": str(load.sink),
    }
    ports = {service: free_port("127.0.0.1") for service in SERVICES} if receiver else {}
    environment |= {f"ALBIREO_{service}_METRICS_PORT": str(port) for service, port in ports.items()}
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as data:
        told = {"otlp_endpoint": receiver.endpoint if receiver else ""}
        settings = StackSettings.model_validate({**options, **told, "port": 0, "data_dir": data})
        with Stack(settings, environment) as stack:
            if not stack.wait_ready(stop):
                raise StackError("interrupted")
            scraper = threading.Thread(target=_scrape, args=(list(ports.values()), scrape_seconds, stop))
            scraper.start()
            try:
                yield stack.target
            finally:
                stop.set()
                scraper.join()


def _scrape(ports: list[int], seconds: float, stop: threading.Event) -> None:
    """As Prometheus would, until ``stop`` is set."""
    while ports and not stop.wait(seconds):
        for port in ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                answer.read()


if __name__ == "__main__":
    typer.run(main)
