"""``albireo bench``: the measurements of ``bench`` that ship as commands."""

from __future__ import annotations

import typer

from albireo.cli.commands import group

COMMANDS = {
    "serve": (
        "albireo.cli.bench.serve:serve",
        "Loads a stack over gRPC; prints throughput, TTFT, TPOT, inter-token latency and the power of GPUs.",
    ),
    "overhead": (
        "albireo.cli.bench.overhead:overhead",
        "Starts a stack in each mode, puts load on it, and shows where the time of a step goes.",
    ),
    "groups": (
        "albireo.cli.bench.groups:groups",
        "Kills one rank of a group now and then, and compares all streams with an undisturbed run.",
    ),
    "sampling": (
        "albireo.cli.bench.sampling:sampling",
        "Samples random logits on this machine's CPU, driver-only and in parallel, in turn; or on its GPU.",
    ),
}

app = typer.Typer(cls=group(COMMANDS), no_args_is_help=True, add_completion=False)


@app.callback()
def _bench() -> None:
    """Measurements."""
