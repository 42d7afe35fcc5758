"""Telemetry of a process: metrics, traces, structured logs. Off until an endpoint or a port is set."""

from __future__ import annotations

from albireo.runtime.settings import ServiceSettings
from albireo.telemetry.instruments import OFF, Telemetry

__all__ = ["OFF", "Telemetry", "start"]


def start(
    service: str,
    settings: ServiceSettings,
    *,
    host: str,
    metrics_port: int | None,
    rank: int | None = None,
    group: str = "",
    model: str | None = None,
) -> Telemetry:
    """The telemetry of this process, ``OFF`` where nothing is set. ``rank`` and ``group``: of a worker.
    ``model``: whose process it is; None: that of the settings; empty: of several.

    Each service calls it once, from its main thread, before it serves. Raises OSError where the port of the
    metrics cannot be bound.
    """
    if not settings.otlp_endpoint and metrics_port is None:
        return OFF
    from albireo.telemetry.providers import Exported  # imports the SDK, which is not loaded otherwise

    attributes = {"service.name": f"albireo-{service}"}
    if rank is not None:
        attributes["albireo.rank"] = str(rank)
    if model is not None:
        attributes["albireo.model"] = model
    if group:
        attributes["albireo.group"] = group
    return Exported(settings, host=host, metrics_port=metrics_port, attributes=attributes)
