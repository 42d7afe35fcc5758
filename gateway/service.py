"""A gateway process: the API's gRPC server in front of the logs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import secrets
import signal
import sys
from collections import Counter

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from redis.exceptions import RedisError

from albireo import telemetry
from albireo.checkpoint.fingerprint import fingerprint
from albireo.contract.keys import Keys
from albireo.runtime.clock import SYSTEM_CLOCK
from albireo.runtime.health_service import AsyncHealthServicer, Statuses
from albireo.runtime.process import LIVE, freeze_heap, give_memory_back
from albireo.store.interface import EntryId
from albireo.store.redis_errors import describe
from albireo.telemetry import OFF, Telemetry
from albireo.telemetry.catalogue import BOUND_HITS
from albireo.telemetry.logs import setup_logging
from albireo.v1 import control_pb2, control_pb2_grpc, inference_pb2, inference_pb2_grpc
from albireo.v1 import log_pb2 as log
from gateway.calls.interceptor import CallBounds, CallInterceptor
from gateway.calls.limits import BOUNDS, AdmissionLimit
from gateway.calls.work import WorkThreads
from gateway.calls.writing import track_parents
from gateway.control import ControlService
from gateway.inference import InferenceService
from gateway.liveness.group import WorkerGroup
from gateway.liveness.other_models import OtherModels
from gateway.liveness.watch import Watch
from gateway.requests.sampling_defaults import sampling_defaults
from gateway.requests.submission import Submitter
from gateway.requests.validation import Validator
from gateway.settings import GatewaySettings
from gateway.store.heartbeat import Heartbeat
from gateway.store.redis_store import RedisGatewayStore
from gateway.streams.results_reader import ResultsReader
from gateway.streams.router import Router
from gateway.telemetry.call_record import CallRecorder
from gateway.telemetry.step_feed import StepFeed
from gateway.telemetry.step_records import step_record
from gateway.text.detokenizer import Vocabulary
from gateway.text.pretrained import without_torch
from gateway.text.text_codec import TextCodec

logger = logging.getLogger(__name__)

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name
MORE_CALLS = 1024
"""Calls besides the streams, such as those for health and load, that are served at once."""
LAST_WORD_SECONDS = 2.0
"""Within these seconds a client that reads gets the status of its call at a stop; then gRPC cuts it."""
MAX_HEALTH_WATCHERS = 64
MAX_IDLE_MS = 900_000
"""A connection without a call is closed after this; clients open another by themselves."""
HANDSHAKE_MS = 20_000
"""A connection that does not begin to speak HTTP/2 is closed after this."""
TIDY_SECONDS = 10.0
MANY_FILES = 1 << 20
OTHER_FILES = 256
"""Of the files that the process may open, those that are no connections of clients."""
MIN_PING_MS = 10_000
"""A client may ping so often while it has a call; more is taken for abuse, and its connection is closed."""
CONTROL = control_pb2.DESCRIPTOR.services_by_name["Control"].full_name


class Gateway:
    """One gateway. ``start``, then ``stop``; both from the same event loop."""

    def __init__(self, settings: GatewaySettings, told: Telemetry = OFF) -> None:
        """Raises CheckpointError for a checkpoint that lacks what is needed."""
        text_codec = TextCodec(settings.model)
        self._settings = settings
        keys = Keys(settings.model_name, settings.group)
        self.store = store = RedisGatewayStore(settings.redis_address, keys, secrets.token_hex(8))
        self._clock = clock = SYSTEM_CLOCK
        validator = _validator(settings, text_codec)
        self._heartbeat = Heartbeat(store, clock)
        submitter = Submitter(
            store, clock, max_queue=settings.max_queue, record_seconds=settings.record_seconds
        )
        self._steps = steps = StepFeed(told)
        hits = Counter(dict.fromkeys(BOUNDS, 0))
        told.observe(BOUND_HITS, lambda: dict(hits))
        self._work = WorkThreads(hits)
        self._calls = CallInterceptor(_bounds(settings), self._work, hits)
        limit = AdmissionLimit(settings.max_streams, "max_streams", "streams", hits)
        self._other_models = OtherModels(store, clock, settings.model_name)
        self.group = WorkerGroup(fingerprint(settings.model))
        self.router = Router(told)
        self.reader = ResultsReader(store, clock, self.router, self._heartbeat, self._on_step)
        self._watch = Watch(
            store, clock, self.router, self.reader, self.group, self._heartbeat, self._on_alive, told
        )
        self._inference = InferenceService(
            validator,
            submitter,
            self.router,
            self.group,
            Vocabulary(text_codec.tokenizer),
            _call_recorder(settings, told),
            limit,
            self._work,
            hits,
            self._other_models,
            max_deadline=settings.max_deadline_seconds,
            sink=settings.sink,
        )
        self._control = ControlService(
            settings, text_codec, validator, self.group, steps, limit, self._other_models, store
        )
        self._health = Statuses(watchers=MAX_HEALTH_WATCHERS)
        self._server: grpc.aio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0

    async def start(self) -> None:
        """Raises OSError when the address is taken, RedisError when Redis does not answer."""
        settings = self._settings
        await self.reader.start()
        await self._heartbeat.start()
        track_parents(asyncio.get_running_loop())
        await self._other_models.names()  # for the log
        self._server = grpc.aio.server(
            # Not with maximum_concurrent_rpcs, which lets calls wait, those for health among them.
            interceptors=[self._calls],
            options=_options(settings),
        )
        inference_pb2_grpc.add_InferenceServicer_to_server(self._inference, self._server)
        control_pb2_grpc.add_ControlServicer_to_server(self._control, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(AsyncHealthServicer(self._health), self._server)
        names = (INFERENCE, CONTROL, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._set_health(serving=False)
        self._health.set(LIVE, serving=True)
        try:
            self.port = self._server.add_insecure_port(f"{settings.host}:{settings.port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {settings.host}:{settings.port}: {error}") from error
        await self._server.start()
        self._tasks = [
            asyncio.create_task(self.reader.run()),
            asyncio.create_task(self._watch.run()),
        ]

    async def wait(self) -> None:
        """Until one of the background tasks fails, which none should."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """No new calls; running streams get the drain time, then they are told, cut and cancelled."""
        self._health.stop()
        if self._server is not None:
            drain = self._settings.drain_seconds
            stopped = asyncio.create_task(self._server.stop(drain + LAST_WORD_SECONDS))
            await asyncio.wait([stopped], timeout=drain)
            self._inference.cut()
            self._steps.close()
            await stopped
        await self._inference.close()
        self._work.close()
        self.reader.stop()
        self._watch.stop()
        # Only the long read is cut short: redis-py now and then swallows a cancellation in mid-command.
        for task in self._tasks[:1]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(RedisError):  # then the key runs out by itself
            await self._heartbeat.stop()
        await self.store.close()

    def _on_step(self, entry_id: EntryId, result: log.StepResult, received: int) -> None:
        record = step_record(
            entry_id,
            result,
            received=received,
            handed_out=self._clock.time_ns(),
            simulated=self.group.simulated,
        )
        self._steps.put(record)

    def _on_alive(self, alive: bool) -> None:
        logger.info("serving" if alive else "not serving: no scheduler, or no group of this checkpoint")
        self._set_health(serving=alive)

    def _set_health(self, *, serving: bool) -> None:
        for name in ("", INFERENCE, CONTROL):
            self._health.set(name, serving=serving)


def _validator(settings: GatewaySettings, text_codec: TextCodec) -> Validator:
    """Raises CheckpointError for a generation_config.json that cannot be read."""
    defaults = sampling_defaults(settings.model) if settings.generation_config == "auto" else None
    return Validator(settings.model_name, text_codec, defaults)


def _call_recorder(settings: GatewaySettings, told: Telemetry) -> CallRecorder:
    # At a thousand requests a second, text is not what anybody would read them in.
    level = logging.INFO if settings.log_format == "json" else logging.DEBUG
    return CallRecorder(told, settings.model_name, log_level=level)


def _bounds(settings: GatewaySettings) -> CallBounds:
    return CallBounds(
        arriving=settings.max_arriving,
        arriving_seconds=settings.message_seconds,
        answering=settings.max_streams + MORE_CALLS,
        write_seconds=settings.write_seconds,
    )


def _options(settings: GatewaySettings) -> list[tuple[str, int]]:
    calls = settings.max_streams + MORE_CALLS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        files = MANY_FILES
    return [
        ("grpc.max_receive_message_length", settings.max_message_mib << 20),
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", calls),  # of a connection
        # Calls that we have not been told of yet. Beyond a thousand, gRPC would cut some, whoever sent them.
        ("grpc.server.max_pending_requests", 2 * calls),
        ("grpc.server.max_pending_requests_hard_limit", 4 * calls),
        ("grpc.max_allowed_incoming_connections", max(files - OTHER_FILES, 1)),
        ("grpc.max_connection_idle_ms", MAX_IDLE_MS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        # Clients that are gone without a word are found within a minute.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.http2.ping_timeout_ms", 20_000),  # a minute by itself, keepalive's or not
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_MS),
    ]


async def _tidy() -> None:
    """What a burst of calls has left behind goes back to the system."""
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        await asyncio.to_thread(give_memory_back)


async def _serve(settings: GatewaySettings, told: Telemetry) -> None:
    gateway = Gateway(settings, told)
    await gateway.start()
    freeze_heap()
    logger.info("listening on %s:%d", settings.host, gateway.port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    waits = [asyncio.create_task(wait) for wait in (stop.wait(), gateway.wait(), _tidy())]
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in waits:
            task.cancel()
        await gateway.stop()


def run(settings: GatewaySettings) -> None:
    """Serves the API until it is told to stop."""
    setup_logging("gateway", settings.log_level, settings.log_format)
    told = OFF
    try:
        told = telemetry.start("gateway", settings, host=settings.host, metrics_port=settings.metrics_port)
        with without_torch():
            asyncio.run(_serve(settings, told))
    except RedisError as error:
        sys.exit(f"gateway: {describe(error)}")
    except (OSError, ValueError) as error:
        sys.exit(f"gateway: {error}")
    finally:
        told.shutdown()
