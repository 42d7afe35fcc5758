"""A gateway: creates the parts, connects them, starts and stops them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter

import grpc

from albireo.runtime.clock import SYSTEM_CLOCK, Clock
from albireo.runtime.health_service import Statuses
from albireo.runtime.process import LIVE
from albireo.telemetry import OFF, Telemetry
from albireo.telemetry.catalogue import BOUND_HITS, STREAMS
from gateway.calls.interceptor import CallBounds, CallInterceptor
from gateway.calls.limits import BOUNDS, AdmissionLimit
from gateway.calls.work import WorkThreads
from gateway.calls.writing import track_parents
from gateway.control import ControlService
from gateway.inference import InferenceService
from gateway.liveness.key_watch import KeyWatch
from gateway.models.backend import Shared
from gateway.models.cell import Cell
from gateway.models.models import Models
from gateway.server import CONTROL, INFERENCE, MAX_OTHER_CALLS, create_health_server, create_server
from gateway.settings import GatewaySettings
from gateway.store.api_keys import RedisApiKeys
from gateway.store.cell_store import RedisCellStore
from gateway.streams.failures import STOPPING
from gateway.telemetry.call_record import CallRecorder

logger = logging.getLogger(__name__)

STATUS_SECONDS = 2.0
"""At a stop, time for clients to read the status of their calls; then gRPC resets the calls."""
MAX_HEALTH_WATCHERS = 64


class Gateway:
    """One gateway. ``start``, then ``stop``; both from the same event loop."""

    def __init__(self, settings: GatewaySettings, telemetry: Telemetry = OFF) -> None:
        """Raises CheckpointError if the checkpoint lacks something."""
        self._settings = settings
        hits = Counter(dict.fromkeys(BOUNDS, 0))
        telemetry.observe(BOUND_HITS, lambda: dict(hits))
        self._health = Statuses(watchers=MAX_HEALTH_WATCHERS)
        self._cells = [Cell(address, RedisCellStore(address)) for address in settings.cell_addresses]
        shared = Shared(settings, secrets.token_hex(8), SYSTEM_CLOCK, telemetry, hits)
        self.models = Models(shared, self._cells, self._on_alive)
        telemetry.observe(STREAMS, lambda: self.models.streams)
        self._work = WorkThreads(hits)
        self._key_watch = _key_watch(settings, SYSTEM_CLOCK)
        self._interceptor = CallInterceptor(_bounds(settings), self._key_watch.keyring, self._work, hits)
        limit = AdmissionLimit(settings.max_streams, "max_streams", "streams", hits)
        self._inference = InferenceService(
            self.models,
            work=self._work,
            recorder=_call_recorder(settings, telemetry),
            limit=limit,
            max_deadline=settings.max_deadline_seconds,
            sink=settings.sink,
        )
        self._control = ControlService(settings, models=self.models, limit=limit)
        self._servers: list[grpc.aio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.port = self.health_port = 0

    async def start(self) -> None:
        """Raises OSError if an address is in use, RedisError if no cell answers, or not that of the API keys,
        ValueError if an API key is needed and there is none, or if a file for TLS cannot be used."""
        await self._key_watch.start()
        await asyncio.gather(*(cell.start() for cell in self._cells))
        self._set_health()
        self._health.set(LIVE, serving=True)
        await self.models.start()
        track_parents(asyncio.get_running_loop())
        await self._listen()
        self._tasks = [asyncio.create_task(self.models.run()), asyncio.create_task(self._key_watch.run())]
        self._tasks += [asyncio.create_task(cell.run()) for cell in self._cells]

    async def _listen(self) -> None:
        server, self.port = create_server(
            self._settings, self._interceptor, self._inference, self._control, self._health
        )
        self._servers = [server]
        if self._settings.health_port is not None:
            probes, self.health_port = create_health_server(self._settings, self._interceptor, self._health)
            self._servers.append(probes)
        for server in self._servers:
            await server.start()

    async def wait(self) -> None:
        """Waits for a background task to end, which only happens by an error. Raises that error."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Refuses new calls. Open streams may run for the drain time; then they fail and their requests are
        cancelled."""
        self._health.stop()
        if self._servers:
            drain = self._settings.drain_seconds
            stopping = [server.stop(drain + STATUS_SECONDS) for server in self._servers]
            stopped = asyncio.ensure_future(asyncio.gather(*stopping))
            await asyncio.wait([stopped], timeout=drain)
            self.models.fail_streams(STOPPING)
            await stopped
        await self.models.stop()
        self._work.close()
        self._key_watch.stop()
        for cell in self._cells:
            cell.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for cell in self._cells:
            await cell.close()
        await self._key_watch.close()

    def _on_alive(self, model: str, alive: bool | None) -> None:
        """``alive``: whether a model is served; None where it is not there any more."""
        if alive is not None:
            logger.info(
                "model %s: %s",
                model,
                "serving" if alive else "not serving: no scheduler, or no group of this checkpoint",
            )
        else:
            self._health.remove(f"{INFERENCE}/{model}")
        self._set_health()

    def _set_health(self) -> None:
        """The whole gateway serves while any of its models does: it takes requests for those."""
        for name in ("", INFERENCE, CONTROL):
            self._health.set(name, serving=any(self.models.alive.values()))
        for model, alive in self.models.alive.items():
            self._health.set(f"{INFERENCE}/{model}", serving=alive)


def _key_watch(settings: GatewaySettings, clock: Clock) -> KeyWatch:
    keys = RedisApiKeys(settings.redis_address)
    return KeyWatch(keys, clock, is_open=settings.serves_without_keys, host=settings.reached_at)


def _call_recorder(settings: GatewaySettings, telemetry: Telemetry) -> CallRecorder:
    # As text, a line per request is too much to read at a thousand requests per second.
    level = logging.INFO if settings.log_format == "json" else logging.DEBUG
    return CallRecorder(telemetry, log_level=level)


def _bounds(settings: GatewaySettings) -> CallBounds:
    return CallBounds(
        arriving=settings.max_arriving,
        arriving_seconds=settings.message_seconds,
        answering=settings.max_streams + MAX_OTHER_CALLS,
        write_seconds=settings.write_seconds,
    )
