"""The command of each process of a stack: its arguments, and its options as environment variables."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from albireo.local.child import Command
from albireo.local.ports import free_port
from albireo.local.settings import StackSettings

GATEWAY_NICENESS = 5
HOST = "127.0.0.1"
"""Where the ranks of a group meet."""


class Commands:
    """Made by the stack, once it knows its addresses."""

    def __init__(
        self, settings: StackSettings, environment: Mapping[str, str], *, model_name: str, redis_url: str
    ) -> None:
        """``environment``: options of the services, as their own variables; they go before ``settings``."""
        self._settings = settings
        self._environment = environment
        self._model_name = model_name
        self._redis_url = redis_url

    def scheduler(self) -> Command:
        return self._service("scheduler", "scheduler", {})

    def gateway(self, target: str, health_target: str) -> Command:
        """``target``: host:port to listen on. ``health_target``: where its health is asked for; with TLS this
        is a port of its own."""
        settings, (host, _, port) = self._settings, target.rpartition(":")
        variables = {
            "ALBIREO_GATEWAY_OPEN": "" if settings.open is None else str(settings.open),
            "ALBIREO_GATEWAY_TLS_CERT": str(settings.tls_cert or ""),
            "ALBIREO_GATEWAY_TLS_KEY": str(settings.tls_key or ""),
            "ALBIREO_GATEWAY_TLS_CLIENT_CA": str(settings.tls_client_ca or ""),
            "ALBIREO_GATEWAY_HOST": host,
            "ALBIREO_GATEWAY_PORT": port,
            "ALBIREO_GATEWAY_MODEL": str(settings.model),
        }
        if health_target != target:
            variables["ALBIREO_GATEWAY_HEALTH_PORT"] = health_target.rpartition(":")[2]
        # All tiers share the cores: steps go before streaming, whose messages then hold more tokens each.
        return self._service("gateway", "gateway", variables, GATEWAY_NICENESS)

    def ranks(self, name: str, settings: StackSettings, *, first: int, local_ranks: int) -> list[Command]:
        """All ranks of a group, with the variables that torchrun would set.

        ``settings``: the group's. ``first``: the number of its rank 0 among the ranks of all groups, of which
        there are ``local_ranks``: they share the machine's cores, memory and GPUs.
        """
        variables = {
            "ALBIREO_GROUP": name,
            "ALBIREO_WORKER_MODEL": str(settings.model),
            "ALBIREO_WORKER_DEVICE": settings.device,
            "ALBIREO_WORKER_DTYPE": settings.dtype,
            "ALBIREO_WORKER_WEIGHTS": settings.weights,
            "ALBIREO_WORKER_KV_DTYPE": settings.kv_dtype,
            "ALBIREO_WORKER_COST_MODEL": settings.cost_model,
            "ALBIREO_WORKER_KV_MEMORY": settings.kv_memory,
            "ALBIREO_WORKER_KV_HOST_MEMORY": settings.kv_host_memory,
            "ALBIREO_WORKER_KV_DISK": "" if settings.kv_disk is None else str(settings.kv_disk.absolute()),
            "ALBIREO_WORKER_KV_DISK_SIZE": settings.kv_disk_size,
            "WORLD_SIZE": str(settings.tp),
            "LOCAL_WORLD_SIZE": str(local_ranks),
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(free_port(HOST)),
        }
        return [
            self._service(
                "worker",
                f"{name}-rank-{rank}",
                {**variables, "RANK": str(rank), "LOCAL_RANK": str(first + rank)},
            )
            for rank in range(settings.tp)
        ]

    def _service(self, service: str, name: str, extra: Mapping[str, str], niceness: int = 0) -> Command:
        settings = self._settings
        variables = {
            "ALBIREO_REDIS_URL": self._redis_url,
            "ALBIREO_REDIS_PASSWORD_FILE": str(settings.redis_password_file or ""),
            "ALBIREO_REDIS_CA_FILE": str(settings.redis_ca_file or ""),
            "ALBIREO_MODEL_NAME": self._model_name,
            "ALBIREO_SYNCHRONOUS": str(settings.synchronous),
            "ALBIREO_OTLP_ENDPOINT": settings.otlp_endpoint,
            "ALBIREO_TRACE_SAMPLE_RATIO": str(settings.trace_sample_ratio),
            "ALBIREO_LOG_FORMAT": settings.log_format,
            "PYTHONUNBUFFERED": "1",
            "TYPER_USE_RICH": "0",  # an error about an option is one line then
            f"ALBIREO_{service.upper()}_PORT": "0",
        }
        arguments = [sys.executable, "-m", "albireo.cli", service]
        return Command(name, arguments, {**variables, **extra, **self._environment}, niceness)
