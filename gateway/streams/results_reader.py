"""Reads the results log, entry by entry, and passes every result to the router.

One task of the event loop runs it (``ResultsReader.run``, started by the gateway). It is the only part of the
streams that calls Redis.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.store.logs import FIELD, EntryId
from albireo.store.redis_errors import describe
from albireo.v1 import log_pb2 as log
from gateway.store.heartbeat import Heartbeat
from gateway.store.redis_retry import RETRY_SECONDS, RedisRetry
from gateway.streams.failures import BEHIND, CLOSED, LAPSED, UNREADABLE, unavailable
from gateway.streams.router import Router

logger = logging.getLogger(__name__)

RedisEntry = tuple[bytes, dict[bytes, bytes]]
"""An entry as Redis returns it: its id and its fields."""
OnStep = Callable[[EntryId, log.StepResult, int], None]

BLOCK_MS = 1000


class ResultsReader:
    """The position of one gateway in the results log."""

    def __init__(
        self, redis: Redis, keys: Keys, router: Router, heartbeat: Heartbeat, on_step: OnStep
    ) -> None:
        """``heartbeat``: this gateway's. ``on_step`` is called with every step's entry id, its result and the
        time at which it was received (nanoseconds since the Unix epoch), after its rows have been routed."""
        self._redis = redis
        self._keys = keys
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
        newest = cast("list[RedisEntry]", await self._redis.xrevrange(self._keys.results, count=1))
        self._move_to(EntryId.parse(newest[0][0]) if newest else EntryId(0, 0))

    async def restart(self) -> None:
        """Continues at the end of a log that was deleted or replaced; all streams fail. Raises RedisError."""
        self._router.fail_epoch(CLOSED)
        await self.start()

    async def run(self) -> None:
        """Reads until stopped. Retries failed calls; after RECONNECT_SECONDS of failures all streams fail."""
        retry = RedisRetry(self._redis)
        while not self._stopping.is_set():
            try:
                if retry.failing and not len(self._router):
                    await self.start()
                replies = cast(
                    "list[tuple[bytes, list[RedisEntry]]]",
                    await self._redis.xread({self._keys.results: str(self._position)}, block=BLOCK_MS),
                )
            except RedisError as error:
                if await retry.gives_up(error):
                    self._router.fail_all(unavailable(describe(error)))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            retry.succeeded()
            received = time.time_ns()
            if replies and self._heartbeat.lapsed:
                # First: their cancellations by the scheduler must not reach clients as answers.
                self._router.fail_all(LAPSED)
            for _, entries in replies:
                for raw_id, fields in entries:
                    self._read(EntryId.parse(raw_id), fields.get(FIELD, b""), received)

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
