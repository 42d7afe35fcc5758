"""``albireo bench``: measurements."""

from __future__ import annotations

import typer

from albireo.cli.commands import group

COMMANDS = {
    "serve": (
        "albireo.cli.bench.serve:serve",
        "Loads a stack over gRPC; prints throughput, TTFT, TPOT and inter-token latency, and what GPUs drew.",
    ),
    "overhead": (
        "albireo.cli.bench.overhead:overhead",
        "Starts a stack of its own in each mode, loads it, and says where every millisecond of a step went.",
    ),
    "sampling": (
        "albireo.cli.bench.sampling:sampling",
        "Samples made-up logits on this machine's CPU, driver-only and in parallel in turn.",
    ),
}

app = typer.Typer(cls=group(COMMANDS), no_args_is_help=True, add_completion=False)


@app.callback()
def _bench() -> None:
    """Measurements."""
