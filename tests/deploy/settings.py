"""The options of the services, by their variables."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from albireo.runtime.settings import ServiceSettings, variable
from gateway.settings import GatewaySettings
from scheduler_svc.settings import SchedulerSettings
from worker_svc.settings import WorkerSettings

SERVICES: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "scheduler": SchedulerSettings,
    "worker": WorkerSettings,
}


def variables(service: str) -> dict[str, FieldInfo]:
    """Every variable that a service reads."""
    settings = SERVICES[service]
    return {variable(settings, name, field): field for name, field in settings.model_fields.items()}


ALL = {name: field for service in SERVICES for name, field in variables(service).items()}
