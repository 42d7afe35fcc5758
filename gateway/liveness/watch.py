"""Sees who is alive: this gateway, the scheduler, the worker group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import cast

import grpc
from redis.asyncio import Redis
from redis.exceptions import RedisError

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.store.redis_errors import describe
from albireo.telemetry import OFF, Telemetry
from albireo.telemetry.catalogue import REDIS_ROUND_TRIP
from gateway.liveness.group import WorkerGroup
from gateway.store.heartbeat import Heartbeat
from gateway.store.redis_retry import RedisRetry
from gateway.streams.failures import LAPSED, NO_SCHEDULER, Failure, unavailable
from gateway.streams.results_reader import ResultsReader
from gateway.streams.router import Router

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.5
MISSES = 2
"""How often in a row the lease must be missing: one look can fall between two schedulers."""


class Watch:
    """Looks twice a second, and fails the streams when what they need is gone."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        router: Router,
        reader: ResultsReader,
        group: WorkerGroup,
        heartbeat: Heartbeat,
        on_alive: Callable[[bool], None],
        telemetry: Telemetry = OFF,
    ) -> None:
        """``on_alive`` is told when a scheduler with a group comes or goes."""
        self._redis = redis
        self._keys = keys
        self._router = router
        self._reader = reader
        self._group = group
        self._heartbeat = heartbeat
        self._on_alive = on_alive
        self._alive = False
        self._round_trip = telemetry.folded(REDIS_ROUND_TRIP)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ends ``run``."""
        self._stopping.set()

    async def run(self) -> None:
        """Looks until stopped."""
        retry, missed = RedisRetry(self._redis), 0
        while not self._stopping.is_set():
            try:
                leased, serving = await self._look()
            except RedisError as error:
                logger.warning("%s", describe(error))
                if await retry.gives_up(error):
                    self._router.fail_all(unavailable(describe(error)))
                serving = False
            else:
                retry.succeeded()
                missed = 0 if leased else missed + 1
                if missed == MISSES:
                    self._router.fail_all(NO_SCHEDULER)
            if serving != self._alive:
                self._alive = serving
                self._on_alive(serving)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._stopping.wait()

    async def _look(self) -> tuple[bool, bool]:
        """Whether a scheduler holds its lease, and whether it serves with a group. Raises RedisError."""
        sent_at = time.monotonic()
        async with self._redis.pipeline(transaction=False) as pipe:
            # First, and raised first: where nothing can be written, a lease that ran out says nothing.
            self._heartbeat.send(pipe)
            pipe.exists(self._keys.lease)
            pipe.get(self._keys.group)
            pipe.get(self._keys.serving)
            pipe.get(self._keys.epoch)
            answers = await pipe.execute(raise_on_error=False)
        self._round_trip.add(time.monotonic() - sent_at)
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        present, leased, group, serving, epoch = cast(
            "tuple[int, int, bytes | None, bytes | None, bytes | None]", answers
        )
        if int(epoch or 0) < self._router.epoch:
            logger.warning("the logs are gone, or begin anew: epoch %s", epoch and epoch.decode())
            await self._reader.restart()
        if not self._heartbeat.confirm(present, sent_at):
            self._router.fail_all(LAPSED)
        return bool(leased), self._read_group(group) and bool(leased) and serving == b"1"

    def _read_group(self, data: bytes | None) -> bool:
        """Takes in what the group announces; False where none serves that this gateway can be in front of."""
        if data is None:
            return False
        try:
            self._group.update(codec.group_from_bytes(data))
        except ValueError as error:
            logger.warning("what the worker group announces cannot be read: %s", error)
            return False
        if self._group.mismatch:
            # The group may have accepted requests already; its tokens would become text without meaning.
            self._router.fail_all(
                Failure(grpc.StatusCode.FAILED_PRECONDITION, self._group.mismatch, retryable=False)
            )
        return not self._group.mismatch
