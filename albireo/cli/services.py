"""``albireo gateway``, ``albireo scheduler`` and ``albireo worker``: one process of a tier each."""

from __future__ import annotations

from albireo.runtime.settings import command
from gateway.settings import GatewaySettings
from scheduler_svc.settings import SchedulerSettings
from worker_svc.settings import WorkerSettings


def _gateway(settings: GatewaySettings) -> None:
    """Runs a gateway: the gRPC API in front of the logs."""
    from gateway.main import run

    run(settings)


def _scheduler(settings: SchedulerSettings) -> None:
    """Runs the scheduler: plans batches and publishes them into Redis."""
    from scheduler_svc.main import run

    run(settings)


def _worker(settings: WorkerSettings) -> None:
    """Runs one rank of a worker group; start t of them with torchrun, or use `albireo up`."""
    from worker_svc.main import run

    run(settings)


gateway = command(GatewaySettings, _gateway)
scheduler = command(SchedulerSettings, _scheduler)
worker = command(WorkerSettings, _worker)
