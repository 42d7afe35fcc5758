"""Checks twice a second whether this gateway's heartbeat, the scheduler and worker groups are alive.

One task of the event loop runs it (``Watch.run``, started by the backend).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc
from redis.exceptions import RedisError

from albireo.contract import codec
from albireo.runtime.clock import Clock
from albireo.store.redis_errors import code_of, describe
from albireo.telemetry import OFF, Telemetry
from albireo.telemetry.catalogue import REDIS_ROUND_TRIP
from gateway.liveness.backend_load import BackendLoad
from gateway.liveness.periodic import pause
from gateway.liveness.served_model import ServedModel
from gateway.store.heartbeat import TTL_SECONDS, Heartbeat
from gateway.store.interface import GatewayStore
from gateway.store.retry import StoreRetry
from gateway.streams.failures import LAPSED, NO_SCHEDULER, Failure, unavailable
from gateway.streams.results_reader import ResultsReader
from gateway.streams.router import Router

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
MISSES = 2
"""How often in a row the lease must be missing: one check may fall between two schedulers."""


class Watch:
    """Renews the heartbeat, updates model and load, and fails the streams if what they need is gone."""

    def __init__(
        self,
        store: GatewayStore,
        clock: Clock,
        what: str,
        *,
        router: Router,
        reader: ResultsReader,
        model: ServedModel,
        load: BackendLoad,
        heartbeat: Heartbeat,
        on_alive: Callable[[], None],
        telemetry: Telemetry = OFF,
    ) -> None:
        """``what``: is watched, for the log. ``on_alive`` is called at every change of ``serving``."""
        self._store = store
        self._clock = clock
        self._what = what
        self._router = router
        self._reader = reader
        self._model = model
        self._load = load
        self._heartbeat = heartbeat
        self._on_alive = on_alive
        self.leased = False
        """Whether a scheduler holds its lease."""
        self.serving = False
        """Whether it has a group, of this gateway's checkpoint."""
        self._round_trip = telemetry.folded(REDIS_ROUND_TRIP)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ends ``run``."""
        self._stopping.set()

    async def run(self) -> None:
        """Checks until stopped."""
        retry, missed = StoreRetry(self._store, self._clock), 0
        while not self._stopping.is_set():
            try:
                self.leased, serving = await self._check()
            except RedisError as error:
                if not retry.failing:
                    logger.warning("%s: %s", self._what, describe(error))
                if await retry.gives_up(error):
                    self._router.fail_all(unavailable(describe(error)))
                self.leased = serving = False
            else:
                retry.succeeded()
                missed = 0 if self.leased else missed + 1
                if missed == MISSES:
                    self._router.fail_all(NO_SCHEDULER)
            if serving != self.serving:
                self.serving = serving
                self._on_alive()
            await pause(self._stopping, WATCH_SECONDS)

    async def _check(self) -> tuple[bool, bool]:
        """Whether a scheduler holds its lease, and whether it serves with a group. Raises RedisError."""
        sent_at, epoch = self._clock.now(), self._router.epoch
        try:
            found = await self._store.check(TTL_SECONDS)
        except RedisError as error:
            if code_of(error):  # it answered, with an error
                self._round_trip.add(self._clock.now() - sent_at)
            raise
        self._round_trip.add(self._clock.now() - sent_at)
        if found.epoch < epoch:  # that of before the call: meanwhile the next one may have begun
            logger.warning("%s: the logs were deleted or replaced: epoch %d", self._what, found.epoch)
            await self._reader.start()
        if not self._heartbeat.confirm(found.heartbeat_kept, sent_at):
            self._router.fail_all(LAPSED)
        self._load.update(found.load)
        readable = self._read_model(found.model)
        return found.leased, found.leased and found.groups > 0 and readable

    def _read_model(self, data: bytes | None) -> bool:
        """Updates the served model; False if it is not known, or not of this gateway's checkpoint."""
        if data is None:
            return False
        before = self._model.mismatch
        try:
            self._model.update(codec.model_from_bytes(data))
        except ValueError as error:
            logger.warning("%s: the description of the model cannot be read: %s", self._what, error)
            return False
        if self._model.mismatch:
            if self._model.mismatch != before:
                logger.error("%s: %s", self._what, self._model.mismatch)
            # The groups may have accepted requests already; their tokens would become text without meaning.
            self._router.fail_all(
                Failure(grpc.StatusCode.FAILED_PRECONDITION, self._model.mismatch, retryable=False)
            )
        return not self._model.mismatch
