"""What telemetry costs: the same load on two stacks in turn, one with telemetry off, one with all of it on.

    python -m bench.observability.cost

On means the defaults: a tenth of the requests traced and sent to a collector, metrics too, every service's
Prometheus endpoint scraped every few seconds. Takes about two minutes.
"""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from albireo.local.ports import free_port
from albireo.models import TINY
from bench.machine import machine
from bench.observability.otlp_receiver import OtlpReceiver
from bench.overhead.measure import Load, Measured, measure_at
from bench.stack import running_stack

SERVICES = ("GATEWAY", "SCHEDULER", "WORKER")
MODES = ("off", "on")
MEASURES: dict[str, Callable[[Measured, Load], float]] = {
    "tokens/s": lambda found, load: load.batch * load.outputs / found.seconds,
    "visible, median us": lambda found, load: _microseconds(found, "visible", 50),
    "visible, p99 us": lambda found, load: _microseconds(found, "visible", 99),
    "period, median us": lambda found, load: _microseconds(found, "period", 50),
    "t1, median us": lambda found, load: _microseconds(found, "t1", 50),
    "t5, median us": lambda found, load: _microseconds(found, "t5", 50),
}

Round = dict[str, dict[str, float]]
"""Each measure of one round, by mode."""


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
    found = measure_rounds(options, load, rounds=rounds, scrape_seconds=scrape_seconds)
    setup = f"{machine()}; {device} {cost_model}, {batch} requests at once, {prompt} + {outputs} tokens"
    if as_json:
        print(json.dumps({"setup": setup, "rounds": found, "quartiles": quartiles(found)}, indent=2))
    else:
        Console(width=160).print(table(found, setup), *summary(found), sep="\n")


def measure_rounds(
    options: Mapping[str, Any], load: Load, *, rounds: int, scrape_seconds: float
) -> list[Round]:
    """Starts both stacks and measures them in turn. Ends the process where no span arrives."""
    with ExitStack() as running:
        receiver = running.enter_context(OtlpReceiver())
        targets = {
            "off": running.enter_context(_serving(options, load)),
            "on": running.enter_context(_serving(options, load, receiver, scrape_seconds)),
        }
        for target in targets.values():
            measure_at(target, load)
        found = [_measure_round(targets, load, number) for number in range(1, rounds + 1)]
        if not receiver.spans:
            sys.exit("no span arrived: telemetry was not on")
    return found


def _measure_round(targets: Mapping[str, str], load: Load, number: int) -> Round:
    # The second one finds the machine as the first one left it, so the order alternates.
    order = MODES if number % 2 else MODES[::-1]
    measured = {mode: measure_at(targets[mode], load, seed=number) for mode in order}
    return {mode: {what: of(measured[mode], load) for what, of in MEASURES.items()} for mode in MODES}


def quartiles(rounds: list[Round]) -> dict[str, list[float]]:
    """Of the ratio on / off, round by round: lower quartile, median, upper quartile of each measure."""
    ratios = {what: [found["on"][what] / found["off"][what] for found in rounds] for what in MEASURES}
    return {what: [float(q) for q in np.percentile(ratios[what], [25, 50, 75])] for what in MEASURES}


def table(rounds: list[Round], setup: str) -> Table:
    """A row for each round."""
    shown = Table("round", *(f"{what} {mode}" for what in MEASURES for mode in MODES), caption=setup)
    for number, values in enumerate(rounds, 1):
        shown.add_row(str(number), *(f"{values[mode][what]:.0f}" for what in MEASURES for mode in MODES))
    return shown


def summary(rounds: list[Round]) -> Iterator[str]:
    """A line for each measure."""
    for what, (low, median, high) in quartiles(rounds).items():
        medians = (f"{mode} {np.median([found[mode][what] for found in rounds]):.0f}" for mode in MODES)
        yield (
            f"{what}: medians of the rounds {', '.join(medians)}; "
            f"on / off round by round {median:.3f} (quartiles {low:.3f} and {high:.3f})"
        )


def _microseconds(found: Measured, name: str, percentile: float) -> float:
    return float(np.percentile([getattr(step, name) for step in found.steps], percentile)) * 1e6


@contextmanager
def _serving(
    options: Mapping[str, Any], load: Load, receiver: OtlpReceiver | None = None, scrape_seconds: float = 0.0
) -> Iterator[str]:
    """Target of a stack of its own; with a receiver, telemetry is on."""
    environment = {
        "ALBIREO_WORKER_MAX_SEQS": str(load.batch),
        "ALBIREO_SCHEDULER_MAX_NUM_SEQS": str(load.batch),
        "ALBIREO_GATEWAY_SINK": str(load.sink),
    }
    ports = {service: free_port("127.0.0.1") for service in SERVICES} if receiver else {}
    environment |= {f"ALBIREO_{service}_METRICS_PORT": str(port) for service, port in ports.items()}
    endpoint = receiver.endpoint if receiver else ""
    stop = threading.Event()
    with running_stack({**options, "otlp_endpoint": endpoint}, environment) as stack:
        scraper = threading.Thread(target=_scrape, args=(list(ports.values()), scrape_seconds, stop))
        scraper.start()
        try:
            yield stack.target
        finally:
            stop.set()
            scraper.join()


def _scrape(ports: list[int], seconds: float, stop: threading.Event) -> None:
    """As Prometheus would, until ``stop`` is set. Runs in a thread of its own."""
    while ports and not stop.wait(seconds):
        for port in ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                answer.read()


if __name__ == "__main__":
    typer.run(main)
