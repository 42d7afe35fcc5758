"""Reads the results log, entry by entry, and passes every result to the router.

One task of the event loop runs it (``ResultsReader.run``, started by the gateway). It is the only part of the
streams that calls the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from redis.exceptions import RedisError

from albireo.contract import codec
from albireo.runtime.clock import Clock
from albireo.store.interface import EntryId
from albireo.store.redis_errors import describe
from albireo.v1 import log_pb2 as log
from gateway.store.heartbeat import Heartbeat
from gateway.store.interface import GatewayStore
from gateway.store.retry import RETRY_SECONDS, StoreRetry
from gateway.streams.failures import BEHIND, CLOSED, LAPSED, UNREADABLE, unavailable
from gateway.streams.router import Router

logger = logging.getLogger(__name__)

OnStep = Callable[[EntryId, log.StepResult, int], None]

READ_SECONDS = 1.0
"""Longest wait of one read for new entries."""


class ResultsReader:
    """The position of one gateway in the results log."""

    def __init__(
        self, store: GatewayStore, clock: Clock, router: Router, heartbeat: Heartbeat, on_step: OnStep
    ) -> None:
        """``heartbeat``: this gateway's. ``on_step`` is called with every step's entry id, its result and the
        time at which it was received (nanoseconds since the Unix epoch), after its rows have been routed."""
        self._store = store
        self._clock = clock
        self._router = router
        self._heartbeat = heartbeat
        self._on_step = on_step
        self._position = EntryId(0, 0)
        self._stopping = asyncio.Event()

    @property
    def position(self) -> EntryId:
        """Id of the last entry that was read."""
        return self._position

    async def start(self) -> None:
        """Moves to the end of the log. Raises RedisError."""
        self._move_to(await self._store.last_result())

    async def restart(self) -> None:
        """Continues at the end of a log that was deleted or replaced; all streams fail. Raises RedisError."""
        self._router.fail_epoch(CLOSED)
        await self.start()

    async def run(self) -> None:
        """Reads until stopped. Retries failed calls; after RECONNECT_SECONDS of failures all streams fail."""
        retry = StoreRetry(self._store, self._clock)
        while not self._stopping.is_set():
            try:
                if retry.failing and not len(self._router):
                    await self.start()
                entries = await self._store.read_results(self._position, READ_SECONDS)
            except RedisError as error:
                if await retry.gives_up(error):
                    self._router.fail_all(unavailable(describe(error)))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            retry.succeeded()
            received = self._clock.time_ns()
            if entries and self._heartbeat.lapsed:
                # First: their cancellations by the scheduler must not reach clients as answers.
                self._router.fail_all(LAPSED)
            for raw_id, data in entries:
                self._read(EntryId.parse(raw_id), data, received)

    def stop(self) -> None:
        """Ends ``run``, at the latest when its blocking read returns."""
        self._stopping.set()

    def _read(self, entry_id: EntryId, data: bytes, received: int) -> None:
        last = self._position
        self._move_to(entry_id)
        try:
            entry = codec.result_from_bytes(data)
        except ValueError as error:
            logger.error("result %s cannot be read: %s", entry_id, error)
            self._router.fail_epoch(UNREADABLE)
            return
        if entry.WhichOneof("entry") == "open":
            self._router.open_epoch()
            return
        if entry_id != EntryId(last.epoch, last.step + 1):
            logger.warning("results %s to %s were trimmed before they were read", last, entry_id)
            self._router.fail_epoch(BEHIND)
        self._router.route(entry.result)
        self._on_step(entry_id, entry.result, received)

    def _move_to(self, entry_id: EntryId) -> None:
        self._position = entry_id
        self._router.epoch = entry_id.epoch
