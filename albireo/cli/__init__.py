"""The command line, ``albireo``. The only module that knows all tiers; each is imported when it is run."""

from __future__ import annotations

import typer

from albireo.cli import bench, chat, generate, health, top, trace, up
from albireo.cli.doctor import doctor
from albireo.process import end_with_parent
from albireo.settings import command
from albireo.stack import StackSettings
from gateway.settings import GatewaySettings
from scheduler_svc.settings import SchedulerSettings
from worker_svc.settings import WorkerSettings

app = typer.Typer(
    help="Albireo: parallel LLM inference with everything but the model taken out of the step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _gateway(settings: GatewaySettings) -> None:
    """Runs a gateway: the gRPC API in front of the logs."""
    from gateway.service import run

    run(settings)


def _scheduler(settings: SchedulerSettings) -> None:
    """Runs the scheduler: plans batches and publishes them into Redis."""
    from scheduler_svc.main import run

    run(settings)


def _worker(settings: WorkerSettings) -> None:
    """Runs one rank of a worker group; start t of them with torchrun, or use `albireo up`."""
    from worker_svc.main import run

    run(settings)


app.command("up")(command(StackSettings, up.up))
app.command("demo")(command(StackSettings, up.demo))
app.command("gateway")(command(GatewaySettings, _gateway))
app.command("scheduler")(command(SchedulerSettings, _scheduler))
app.command("worker")(command(WorkerSettings, _worker))
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("health")(health.health)
app.command("trace")(trace.trace)
app.command("top")(top.top)
app.command("doctor")(doctor)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Entry point of the console script."""
    end_with_parent()
    app()
