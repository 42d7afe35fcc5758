"""``albireo gateway``, ``albireo scheduler`` and ``albireo worker``: one process of a tier each."""

from __future__ import annotations

from albireo.runtime.imports import without_collection
from albireo.runtime.settings import command
from gateway.settings import GatewaySettings
from scheduler_svc.settings import SchedulerSettings
from worker_svc.settings import WorkerSettings


def _gateway(settings: GatewaySettings) -> None:
    """Runs a gateway: the gRPC API in front of the logs."""
    with without_collection():
        from gateway.main import run

    run(settings)


def _scheduler(settings: SchedulerSettings) -> None:
    """Runs the scheduler: plans batches and publishes them into Redis."""
    with without_collection():
        from scheduler_svc.main import run

    run(settings)


def _worker(settings: WorkerSettings) -> None:
    """Runs one rank of a worker group; start t of them with torchrun, or use `albireo up`."""
    with without_collection():
        from worker_svc.main import run

    run(settings)


gateway = command(GatewaySettings, _gateway)
scheduler = command(SchedulerSettings, _scheduler)
worker = command(WorkerSettings, _worker)
