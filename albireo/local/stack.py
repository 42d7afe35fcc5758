"""The whole of Albireo on one machine: Redis, the scheduler, a worker group and a gateway.

Used by ``albireo up``, benchmarks and tests, from one thread.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis import Redis
from redis.exceptions import RedisError

from albireo.checkpoint.files import CheckpointError, check_directory
from albireo.contract.keys import Keys
from albireo.local.child import Command
from albireo.local.ports import bind_once, free_port
from albireo.local.redis_server import LocalRedis
from albireo.local.settings import StackSettings
from albireo.local.supervisor import Supervisor, Unit
from albireo.store.connection import connect
from albireo.v1 import log_pb2 as log

HEALTH_POLL_SECONDS = 0.1
GATEWAY_NICENESS = 5
MAX_NAME = 128
"""Most characters of a model's name."""


class StackError(RuntimeError):
    """The stack did not come up."""


class Stack:
    """A context manager around the running processes."""

    def __init__(self, settings: StackSettings, environment: Mapping[str, str] | None = None) -> None:
        """``environment``: options of the services, as their own variables."""
        self.settings = settings
        self._environment = environment or {}
        self.model_name = settings.model_name or legal_name(settings.model.resolve().name)
        self.target = f"{settings.host}:{settings.port or free_port(settings.host)}"
        self.units: dict[str, Unit] = {}
        self._server: LocalRedis | None = None
        self._supervisor = Supervisor([])
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        """Starts everything, see ``wait_ready``. Raises StackError, RedisServerError."""
        try:
            self._start()
        except BaseException:
            self._closing.close()
            raise
        return self

    def _start(self) -> None:
        self._check_model()
        self._check_port()
        logs = self._log_directory()
        url = self.settings.redis_url
        if not url:
            self._server = server = LocalRedis(self.settings.data_dir / "redis")
            self._closing.callback(server.stop)
            url = server.url
        self._address = self.settings.redis_address or url
        try:
            self._redis().close()
        except ValueError as error:
            raise StackError(f"--redis-url {url}: {error}") from None
        self._keys = Keys(self.model_name, self.settings.group)
        self.units = {
            unit.name: unit
            for unit in (
                Unit("scheduler", [self._service("scheduler", url)], logs),
                Unit("worker", [self._rank(rank, url) for rank in range(self.settings.tp)], logs),
                Unit("gateway", [self._gateway(url)], logs),
            )
        }
        self._supervisor = Supervisor(list(self.units.values()))
        self._closing.callback(self._supervisor.stop)
        self._supervisor.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def wait_ready(
        self, stop: threading.Event, on_wait: Callable[[Sequence[str]], None] = lambda missing: None
    ) -> bool:
        """Waits until the gateway serves; False when ``stop`` was set before. Raises GaveUp, StackError.

        ``on_wait`` is called at each poll, with the names of the units that are not up yet.
        """
        deadline = time.monotonic() + self.settings.start_seconds
        missing = list(self.units)
        with grpc.insecure_channel(self.target) as channel, self._redis() as redis:
            health = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < deadline:
                self._check_redis()
                self._supervisor.check(restart=False)
                status = _health_of(health)
                if status == health_pb2.HealthCheckResponse.SERVING:
                    return True
                up = {"gateway": status is not None, **self._announced(redis)}
                missing = [name for name in self.units if not up[name]]
                on_wait(missing)
                if stop.wait(HEALTH_POLL_SECONDS):
                    return False
        raise StackError(
            f"not serving after {self.settings.start_seconds:.0f} s (--start-seconds), not up yet: "
            f"{', '.join(missing) or 'the epoch'}; logs in {self.settings.data_dir / 'logs'}"
        )

    def group(self) -> log.GroupInfo:
        """What the worker group announces of itself. Raises RedisError."""
        with self._redis() as redis:
            return log.GroupInfo.FromString(cast("bytes | None", redis.get(self._keys.group)) or b"")

    def _announced(self, redis: Redis) -> dict[str, bool]:
        """Whether scheduler and worker group have announced themselves in Redis."""
        try:
            return {
                "scheduler": bool(redis.exists(self._keys.lease)),
                "worker": bool(redis.exists(self._keys.group)),
            }
        except RedisError:  # the services report it
            return {"scheduler": False, "worker": False}

    def _redis(self) -> Redis:
        return connect(self._address, timeout=1.0)

    def watch(self, stop: threading.Event) -> None:
        """Keeps everything running until ``stop`` is set. Raises GaveUp, and StackError without Redis."""
        self._supervisor.watch(stop, self._check_redis)

    def _check_model(self) -> None:
        """Refuses a directory that is not a checkpoint before anything starts; services check its content."""
        try:
            check_directory(self.settings.model)
        except (CheckpointError, OSError) as error:
            raise StackError(f"--model {error}") from None

    def _log_directory(self) -> Path:
        logs = self.settings.data_dir / "logs"
        try:
            logs.mkdir(parents=True, exist_ok=True)
            (logs / "scheduler.log").open("ab").close()
        except OSError as error:
            raise StackError(f"{logs}: {error.strerror}; choose another --data-dir") from None
        return logs

    def _check_port(self) -> None:
        """Refuses a port that is in use: the server there would answer the health checks for the gateway."""
        host, _, port = self.target.rpartition(":")
        try:
            bind_once(host, int(port))
        except OSError as error:
            raise StackError(
                f"cannot listen on {self.target}: {error.strerror}; choose another --port"
            ) from None

    def _check_redis(self) -> None:
        if self._server is not None and not self._server.alive:
            raise StackError(f"redis-server ended; see {self._server.log}")

    def _service(
        self, service: str, redis_url: str, extra: dict[str, str] | None = None, name: str = ""
    ) -> Command:
        environment = {
            "ALBIREO_REDIS_URL": redis_url,
            "ALBIREO_REDIS_PASSWORD_FILE": str(self.settings.redis_password_file or ""),
            "ALBIREO_REDIS_CA_FILE": str(self.settings.redis_ca_file or ""),
            "ALBIREO_MODEL_NAME": self.model_name,
            "ALBIREO_GROUP": self.settings.group,
            "ALBIREO_SYNCHRONOUS": str(self.settings.synchronous),
            "ALBIREO_OTLP_ENDPOINT": self.settings.otlp_endpoint,
            "ALBIREO_TRACE_SAMPLE_RATIO": str(self.settings.trace_sample_ratio),
            "ALBIREO_LOG_FORMAT": self.settings.log_format,
            "PYTHONUNBUFFERED": "1",
            "TYPER_USE_RICH": "0",  # an error about an option is one line then
            f"ALBIREO_{service.upper()}_PORT": "0",
        }
        arguments = [sys.executable, "-m", "albireo.cli", service]
        # All tiers share the cores: steps go before streaming, whose messages then hold more tokens each.
        niceness = GATEWAY_NICENESS if service == "gateway" else 0
        variables = {**environment, **(extra or {}), **self._environment}
        return Command(name or service, arguments, variables, niceness)

    def _gateway(self, redis_url: str) -> Command:
        host, _, port = self.target.rpartition(":")
        extra = {
            "ALBIREO_GATEWAY_HOST": host,
            "ALBIREO_GATEWAY_PORT": port,
            "ALBIREO_GATEWAY_MODEL": str(self.settings.model),
        }
        return self._service("gateway", redis_url, extra)

    def _rank(self, rank: int, redis_url: str) -> Command:
        """One rank, with the variables that torchrun would set."""
        settings = self.settings
        if rank == 0:
            self._rendezvous_port = free_port("127.0.0.1")
        extra = {
            "ALBIREO_WORKER_MODEL": str(settings.model),
            "ALBIREO_WORKER_DEVICE": settings.device,
            "ALBIREO_WORKER_DTYPE": settings.dtype,
            "ALBIREO_WORKER_COST_MODEL": settings.cost_model,
            "ALBIREO_WORKER_KV_MEMORY": settings.kv_memory,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(settings.tp),
            "LOCAL_WORLD_SIZE": str(settings.tp),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self._rendezvous_port),
        }
        return self._service("worker", redis_url, extra, f"worker-{rank}")


def legal_name(directory: str) -> str:
    """A directory's name as a name of a model: characters that those must not have become ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", directory)[:MAX_NAME].strip("-") or "model"


def _health_of(stub: health_pb2_grpc.HealthStub) -> int | None:
    """The health status of a gateway; None where it does not answer."""
    try:
        status: int = stub.Check(health_pb2.HealthCheckRequest(), timeout=1).status
    except grpc.RpcError:
        return None
    return status
