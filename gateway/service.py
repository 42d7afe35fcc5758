"""A gateway: creates the parts, connects them, starts and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import Counter

import grpc
from redis.exceptions import RedisError

from albireo.checkpoint.fingerprint import fingerprint
from albireo.contract.keys import Keys
from albireo.runtime.clock import SYSTEM_CLOCK, Clock
from albireo.runtime.health_service import Statuses
from albireo.runtime.process import LIVE
from albireo.store.interface import EntryId
from albireo.telemetry import OFF, Telemetry
from albireo.telemetry.catalogue import BOUND_HITS
from albireo.v1 import log_pb2 as log
from gateway.calls.interceptor import CallBounds, CallInterceptor
from gateway.calls.limits import BOUNDS, AdmissionLimit
from gateway.calls.work import WorkThreads
from gateway.calls.writing import track_parents
from gateway.control import ControlService
from gateway.inference import InferenceService
from gateway.liveness.key_watch import KeyWatch
from gateway.liveness.model_names import ModelNames
from gateway.liveness.policy_watch import PolicyWatch
from gateway.liveness.served_model import ServedModel
from gateway.liveness.watch import Watch
from gateway.requests.inbox_writer import InboxWriter
from gateway.requests.sampling_defaults import sampling_defaults
from gateway.requests.submission import Submitter
from gateway.requests.validation import Validator
from gateway.server import CONTROL, INFERENCE, MAX_OTHER_CALLS, create_health_server, create_server
from gateway.settings import GatewaySettings
from gateway.store.api_keys import RedisApiKeys
from gateway.store.heartbeat import Heartbeat
from gateway.store.redis_store import RedisGatewayStore
from gateway.streams.results_reader import ResultsReader
from gateway.streams.router import Router
from gateway.telemetry.call_record import CallRecorder
from gateway.telemetry.step_feed import StepFeed
from gateway.telemetry.step_records import step_record
from gateway.text.detokenizer import Vocabulary
from gateway.text.text_codec import TextCodec

logger = logging.getLogger(__name__)

STATUS_SECONDS = 2.0
"""At a stop, time for clients to read the status of their calls; then gRPC resets the calls."""
MAX_HEALTH_WATCHERS = 64


class Gateway:
    """One gateway. ``start``, then ``stop``; both from the same event loop."""

    def __init__(self, settings: GatewaySettings, telemetry: Telemetry = OFF) -> None:
        """Raises CheckpointError if the checkpoint lacks something."""
        self._settings = settings
        text_codec = TextCodec(settings.model)
        validator = _validator(settings, text_codec)
        keys = Keys(settings.model_name)
        self.store = RedisGatewayStore(settings.redis_address, keys, secrets.token_hex(8))
        self._clock = SYSTEM_CLOCK
        self._heartbeat = Heartbeat(self.store, self._clock)
        self._steps = StepFeed(telemetry)
        self._names = ModelNames(self.store, self._clock, settings.model_name)
        self.model = ServedModel(fingerprint(settings.model))
        self.router = Router(telemetry)
        self.reader = ResultsReader(self.store, self._clock, self.router, self._heartbeat, self._on_step)
        self._watch = Watch(
            self.store,
            self._clock,
            router=self.router,
            reader=self.reader,
            model=self.model,
            heartbeat=self._heartbeat,
            on_alive=self._on_alive,
            telemetry=telemetry,
        )
        hits = Counter(dict.fromkeys(BOUNDS, 0))
        telemetry.observe(BOUND_HITS, lambda: dict(hits))
        self._work = WorkThreads(hits)
        self._key_watch = _key_watch(settings, self._clock)
        self._interceptor = CallInterceptor(_bounds(settings), self._key_watch.keyring, self._work, hits)
        limit = AdmissionLimit(settings.max_streams, "max_streams", "streams", hits)
        self._policies = PolicyWatch(self.store)
        self.submitter = Submitter(
            self.store,
            self._clock,
            max_queue=settings.max_queue,
            record_seconds=settings.record_seconds,
            policy_of=self._policies.of,
            hits=hits,
        )
        writer = InboxWriter(self.submitter, hits)
        recorder = _call_recorder(settings, telemetry)
        vocabulary = Vocabulary(text_codec.tokenizer)
        self._inference = self._inference_service(validator, writer, vocabulary, recorder, limit)
        self._control = self._control_service(validator, limit)
        self._health = Statuses(watchers=MAX_HEALTH_WATCHERS)
        self._servers: list[grpc.aio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.port = self.health_port = 0

    async def start(self) -> None:
        """Raises OSError if an address is in use, RedisError if Redis does not answer, ValueError if an API
        key is needed and there is none, or if a file for TLS cannot be used."""
        await self._key_watch.start()
        await self.reader.start()
        await self._heartbeat.start()
        track_parents(asyncio.get_running_loop())
        await self._names.others()  # logs them
        self._set_health(serving=False)
        self._health.set(LIVE, serving=True)
        server, self.port = create_server(
            self._settings, self._interceptor, self._inference, self._control, self._health
        )
        self._servers = [server]
        if self._settings.health_port is not None:
            probes, self.health_port = create_health_server(self._settings, self._interceptor, self._health)
            self._servers.append(probes)
        for server in self._servers:
            await server.start()
        self._tasks = [
            asyncio.create_task(self.reader.run()),
            asyncio.create_task(self._policies.run()),
            asyncio.create_task(self._watch.run()),
            asyncio.create_task(self._key_watch.run()),
        ]

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
            self._inference.fail_streams()
            self._steps.close()
            await stopped
        await self._inference.close()
        self._work.close()
        self.reader.stop()
        self._policies.stop()
        self._watch.stop()
        self._key_watch.stop()
        # Only the blocking read is cancelled: redis-py sometimes ignores a cancellation within a command.
        for task in self._tasks[:1]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(RedisError):  # then the key expires
            await self._heartbeat.stop()
        await self.store.close()
        await self._key_watch.close()

    def _inference_service(
        self,
        validator: Validator,
        writer: InboxWriter,
        vocabulary: Vocabulary,
        recorder: CallRecorder,
        limit: AdmissionLimit,
    ) -> InferenceService:
        return InferenceService(
            validator=validator,
            work=self._work,
            submitter=self.submitter,
            writer=writer,
            router=self.router,
            model=self.model,
            names=self._names,
            vocabulary=vocabulary,
            recorder=recorder,
            limit=limit,
            max_deadline=self._settings.max_deadline_seconds,
            sink=self._settings.sink,
        )

    def _control_service(self, validator: Validator, limit: AdmissionLimit) -> ControlService:
        return ControlService(
            self._settings,
            validator=validator,
            store=self.store,
            model=self.model,
            names=self._names,
            steps=self._steps,
            limit=limit,
        )

    def _on_step(self, group: str, entry_id: EntryId, result: log.StepResult, received: int) -> None:
        record = step_record(
            group,
            entry_id,
            result,
            received=received,
            handed_out=self._clock.time_ns(),
            simulated=self.model.simulated,
        )
        self._steps.put(record)

    def _on_alive(self, alive: bool) -> None:
        logger.info("serving" if alive else "not serving: no scheduler, or no group of this checkpoint")
        self._set_health(serving=alive)

    def _set_health(self, *, serving: bool) -> None:
        for name in ("", INFERENCE, CONTROL):
            self._health.set(name, serving=serving)


def _key_watch(settings: GatewaySettings, clock: Clock) -> KeyWatch:
    keys = RedisApiKeys(settings.redis_address)
    return KeyWatch(keys, clock, is_open=settings.serves_without_keys, host=settings.reached_at)


def _validator(settings: GatewaySettings, text_codec: TextCodec) -> Validator:
    """Raises CheckpointError for a generation_config.json that cannot be read."""
    defaults = sampling_defaults(settings.model) if settings.generation_config == "auto" else None
    return Validator(text_codec, defaults)


def _call_recorder(settings: GatewaySettings, telemetry: Telemetry) -> CallRecorder:
    # As text, a line per request is too much to read at a thousand requests per second.
    level = logging.INFO if settings.log_format == "json" else logging.DEBUG
    return CallRecorder(telemetry, settings.model_name, log_level=level)


def _bounds(settings: GatewaySettings) -> CallBounds:
    return CallBounds(
        arriving=settings.max_arriving,
        arriving_seconds=settings.message_seconds,
        answering=settings.max_streams + MAX_OTHER_CALLS,
        write_seconds=settings.write_seconds,
    )
