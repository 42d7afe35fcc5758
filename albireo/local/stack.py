"""The whole of Albireo on one machine: Redis, the scheduler, worker groups and a gateway.

Used by ``albireo up``, benchmarks and tests, from one thread; another may ``watch``.
"""

from __future__ import annotations

import re
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
from albireo.local.commands import Commands
from albireo.local.group_units import GroupPlaces, LostGroups
from albireo.local.ports import bind_once, free_port
from albireo.local.redis_server import LocalRedis
from albireo.local.settings import StackSettings
from albireo.local.supervisor import Supervisor, Unit
from albireo.store.connection import connect
from albireo.v1 import log_pb2 as log

HEALTH_POLL_SECONDS = 0.1
LOOK_SECONDS = 1.0
"""How often the watch looks which groups are registered."""
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
        self._health_target = self.target
        if settings.tls_cert is not None:
            self._health_target = f"{settings.host}:{free_port(settings.host)}"
        self.units: dict[str, Unit] = {}
        self._places = GroupPlaces()
        self._lost = LostGroups()
        self._look_at = 0.0
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
        self._keys = Keys(self.model_name)
        self._commands = commands = Commands(
            self.settings, self._environment, model_name=self.model_name, redis_url=url
        )
        self._logs = logs
        taken = [self._places.take(self.settings.tp) for _ in range(self.settings.groups)]
        self.units = {
            unit.name: unit
            for unit in (
                Unit("scheduler", [commands.scheduler()], logs),
                *(self._group_unit(name, first, self.settings) for name, first in taken),
                Unit("gateway", [commands.gateway(self.target, self._health_target)], logs),
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
        with grpc.insecure_channel(self._health_target) as channel, self._redis() as redis:
            health = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < deadline:
                self._check_redis()
                self._supervisor.check(restart=False)
                status = _health_of(health)
                up = {*self._up(redis), *(["gateway"] if status is not None else [])}
                missing = [name for name in self.units if name not in up]
                if status == health_pb2.HealthCheckResponse.SERVING and not missing:
                    return True
                on_wait(missing)
                if stop.wait(HEALTH_POLL_SECONDS):
                    return False
        raise StackError(
            f"not serving after {self.settings.start_seconds:.0f} s (--start-seconds), not up yet: "
            f"{', '.join(missing) or 'the epoch'}; logs in {self.settings.data_dir / 'logs'}"
        )

    def groups(self) -> list[log.GroupInfo]:
        """What the registered worker groups announce of themselves. Raises RedisError."""
        with self._redis() as redis:
            return self._announced(redis, self._keys.groups)

    @property
    def address(self) -> str:
        """Of Redis, with its password; once the stack has started."""
        return self._address

    @property
    def group_names(self) -> list[str]:
        """Of this stack's groups; each is a unit."""
        return self._places.names

    def add_group(self, **options: object) -> str:
        """Starts one group more, and returns its name without waiting for it.

        ``options``: fields of StackSettings (tp, device, ...) in which it differs from the others.
        """
        settings = self.settings.model_copy(update=options)
        name, first = self._places.take(settings.tp)
        unit = self._group_unit(name, first, settings)
        self.units[name] = unit
        self._supervisor.add(unit)
        return name

    def remove_group(self, name: str) -> None:
        """Stops a group, which gives its requests back: the other groups go on with them."""
        self._supervisor.remove(self.units.pop(name))
        self._places.free(name)

    def _group_unit(self, name: str, first: int, settings: StackSettings) -> Unit:
        ranks = self._commands.ranks(name, settings, first=first, local_ranks=self._places.ranks)
        return Unit(name, ranks, self._logs)

    def _up(self, redis: Redis) -> set[str]:
        """The scheduler, if it has its lease, and the groups that it leads."""
        try:
            scheduler = ["scheduler"] if redis.exists(self._keys.lease) else []
            return {*scheduler, *(info.name for info in self._announced(redis, self._keys.serving))}
        except RedisError:  # the services report it
            return set()

    def _announced(self, redis: Redis, key: str) -> list[log.GroupInfo]:
        """Announcements of the groups of a set that have one."""
        members = sorted(cast("set[bytes]", redis.smembers(key)))
        keys = [self._keys.group(incarnation.decode()) for incarnation in members]
        found = cast("list[bytes | None]", redis.mget(keys)) if keys else []
        return [log.GroupInfo.FromString(data) for data in found if data is not None]

    def _redis(self) -> Redis:
        return connect(self._address, timeout=1.0)

    def watch(self, stop: threading.Event) -> None:
        """Keeps everything running until ``stop`` is set. Raises GaveUp, and StackError without Redis."""
        self._supervisor.watch(stop, self._look)

    def _look(self) -> None:
        """Ends groups that are lost, though their processes run; the supervisor starts them again."""
        self._check_redis()
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            registered = {info.incarnation: info.name for info in self.groups()}
        except RedisError:  # what is not known is not lost
            self._lost.pause(time.monotonic() - now + LOOK_SECONDS)
            return
        units = dict(self.units)
        started = {name: unit.started for name, unit in units.items()}
        for name in self._lost.look(registered, started, now):
            units[name].end()

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
