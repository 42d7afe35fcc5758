"""The command line, ``albireo``: the list of its commands, each of which is imported when it runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from albireo import __version__
from albireo.cli.commands import group
from albireo.local.parent import end_with_parent

COMMANDS = {
    "up": (
        "albireo.cli.up:up",
        "Starts Redis, the scheduler, worker groups and a gateway on this machine, and keeps them running.",
    ),
    "demo": (
        "albireo.cli.up:demo",
        "Starts everything, streams one answer, prints TTFT and tokens/s, and stops everything.",
    ),
    "gateway": ("albireo.cli.services:gateway", "Runs a gateway: the gRPC API in front of the logs."),
    "scheduler": (
        "albireo.cli.services:scheduler",
        "Runs the scheduler: plans batches and publishes them into Redis.",
    ),
    "worker": (
        "albireo.cli.services:worker",
        "Runs one rank of a worker group; start t of them with torchrun, or use `albireo up`.",
    ),
    "keys": ("albireo.cli.keys:app", "Creates, lists and revokes the API keys of a deployment."),
    "generate": (
        "albireo.cli.generate:generate",
        "Streams an answer, or several: text to standard output, TTFT and tokens/s to standard error.",
    ),
    "chat": ("albireo.cli.chat:chat", "Talks with the model; Ctrl-C stops an answer, Ctrl-D leaves."),
    "health": (
        "albireo.cli.health:health",
        "Asks a service for its gRPC health: exit status 0 where it serves, else 1 and why.",
    ),
    "trace": (
        "albireo.cli.trace:trace",
        "Records the steps of a running stack; open the file in ui.perfetto.dev or chrome://tracing.",
    ),
    "top": (
        "albireo.cli.top:top",
        "Shows groups, queue, KV blocks, tokens/s and T1 to T5 of a running stack, live; Ctrl-C ends it.",
    ),
    "doctor": (
        "albireo.cli.doctor:doctor",
        "Checks Redis, clock, ports, torch, the model, memory and the disk for KV, and says what to do.",
    ),
    "tenants": ("albireo.cli.tenants:app", "Shares and quotas of tenants, changed while everything runs."),
    "calibrate": (
        "albireo.cli.calibrate:calibrate",
        "Measures groups of a model on this machine, and writes a device file for simulate and plan.",
    ),
    "simulate": (
        "albireo.cli.simulate:simulate",
        "Runs a workload on a described device in virtual time; reports throughput, TTFT and TPOT.",
    ),
    "plan": (
        "albireo.cli.plan:plan",
        "Simulates every split of the devices into groups, and says which is best, why, and how to run it.",
    ),
    "bench": ("albireo.cli.bench:app", "Measurements."),
}

app = typer.Typer(cls=group(COMMANDS), no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"albireo {__version__}")
        raise typer.Exit


@app.callback()
def _albireo(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Albireo: parallel LLM inference with everything but the model taken out of the step."""


def main() -> None:
    """Entry point of the console script."""
    end_with_parent()
    for stream in (sys.stdout, sys.stderr):
        # A terminal whose encoding lacks a character shows "?" in its place; the answer goes on.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app()
