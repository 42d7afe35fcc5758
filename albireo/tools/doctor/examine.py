"""Runs all checks, in order, on the settings that the services would have; called by ``albireo doctor``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from redis.exceptions import RedisError

from albireo.runtime.kv_memory import DISK_BYTES, KvMemory
from albireo.runtime.settings import ServiceSettings, variable
from albireo.store.connection import connect
from albireo.tools.doctor import checkpoint, gateway_access, kv_disk, limits, ports, redis_server
from albireo.tools.doctor.clock import check_clock
from albireo.tools.doctor.finding import Finding, failure, note, ok, warning
from gateway.settings import GatewaySettings
from scheduler_svc.settings import SchedulerSettings
from worker_svc.kv_tiers.disk_speed import DiskSpeed
from worker_svc.model.config import ModelConfig
from worker_svc.settings import WorkerSettings

Settings = TypeVar("Settings", bound=ServiceSettings)


def examine(options: Mapping[str, Any], *, tp: int) -> Iterator[Finding]:
    """Findings as they come. ``options``: fields of the worker's settings that go before the environment;
    those that other services share go before theirs. ``tp``: ranks on this machine."""
    gateway, found = _settings(GatewaySettings, options)
    yield from found
    scheduler, found = _settings(SchedulerSettings, options)
    yield from found
    worker, found = _settings(WorkerSettings, options)
    yield from found
    services = {"gateway": gateway, "scheduler": scheduler, "worker": worker}
    known = {name: settings for name, settings in services.items() if settings is not None}
    if len(known) == len(services):
        yield ok("settings", "those of gateway, scheduler and worker are valid")
    if known:
        chosen = bool({"redis_url", "redis_password_file", "redis_ca_file"} & _set_fields(known))
        yield from _redis(next(iter(known.values())).redis_address, chosen=chosen)
    yield from ports.check_ports(
        wanted for name, settings in known.items() for wanted in ports.ports_of(name, settings)
    )
    if gateway is not None:
        for address in gateway.cell_addresses[1:]:
            yield from _redis(address, chosen=True)
        yield gateway_access.check_keys(gateway)
        yield gateway_access.check_tls(gateway)
        yield limits.check_files(gateway.max_streams)
    if worker is not None:
        yield limits.check_shared_memory(worker.device, tp)
        yield from _worker(worker, tp)


def _settings(kind: type[Settings], options: Mapping[str, Any]) -> tuple[Settings | None, list[Finding]]:
    given = {name: value for name, value in options.items() if name in kind.model_fields}
    try:
        return kind(**given), []
    except ValidationError as error:
        return None, [
            failure("settings", f"{_name(kind, each['loc'])}: {each['msg']}", "correct it")
            for each in error.errors()
        ]


def _name(kind: type[ServiceSettings], where: tuple[int | str, ...]) -> str:
    """The variable that is wrong; ``PREFIX*`` for an error about several together."""
    name = str(where[0]) if where else f"{kind.model_config.get('env_prefix', '')}*"
    field = kind.model_fields.get(name)
    return name if field is None else variable(kind, name, field)


def _set_fields(services: Mapping[str, ServiceSettings]) -> set[str]:
    """Fields that were given, as an option or in the environment."""
    return {name for settings in services.values() for name in settings.model_fields_set}


def _redis(url: str, *, chosen: bool) -> Iterator[Finding]:
    own = None if chosen else redis_server.check_own_redis(url)
    if own is not None:
        yield from own
        return
    found = redis_server.check_redis(url)
    yield from found
    if any(finding.level == "failure" and finding.check == "redis" for finding in found):
        return
    try:
        with connect(url) as client:
            yield check_clock(client)
    except RedisError as error:
        yield warning("clock", f"Redis refuses TIME: {error}", "allow this user TIME")


def _worker(settings: WorkerSettings, tp: int) -> Iterator[Finding]:
    found, config = checkpoint.check_config(settings.model, tp)
    yield from found
    fits = config is not None and not any(finding.level == "failure" for finding in found)
    if config is not None:
        yield from checkpoint.check_tokenizer(settings.model)
        if settings.device != "sim":  # which reads no weights
            yield (weights := checkpoint.check_files(settings.model))
            fits = fits and weights.level == "ok"
    speed = None
    if settings.kv_disk is not None and settings.device != "sim":
        wanted = tp * (KvMemory.parse_disk(settings.kv_disk_size) or DISK_BYTES)
        found_disk, speed = kv_disk.check_disk(settings.kv_disk, wanted)
        yield found_disk
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        absent = f"{' and '.join(missing)} not installed; needed on worker machines only"
        yield note("torch", absent, "pip install 'albireo[worker]'")
        return
    try:
        importlib.import_module("torch")
    except (ImportError, OSError) as error:
        yield failure("torch", f"does not load: {error}", "install a build of torch for this machine")
        return
    yield from _with_torch(settings, config if fits else None, tp, speed)


def _with_torch(
    settings: WorkerSettings, config: ModelConfig | None, tp: int, disk: DiskSpeed | None
) -> Iterator[Finding]:
    from albireo.tools.doctor.memory import check_memory
    from albireo.tools.doctor.torch_checks import check_torch, chunk_rate
    from albireo.tools.doctor.two_ranks import check_two_ranks

    yield from check_torch(settings, tp)
    yield check_two_ranks()
    if config is not None:
        yield from check_memory(settings, config, tp)
    if config is not None and disk is not None:
        yield kv_disk.check_use(disk, config, settings.dtype, chunk_rate(settings, config, tp), tp)
