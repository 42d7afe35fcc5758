"""Follows the results log and hands its rows to the streams of this gateway."""

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

from albireo.keys import Keys
from albireo.logs import FIELD, RECONNECT_SECONDS, EntryId
from albireo.plan import Finish
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from gateway.steps import StepFeed
from gateway.stream import Failure, TokenStream

logger = logging.getLogger(__name__)

Entry = tuple[bytes, dict[bytes, bytes]]

BLOCK_MS = 1000
WATCH_SECONDS = 0.5
# The lease must be seen missing twice: one look can fall between two schedulers.
MISSES = 2


class Follower:
    """The streams of one gateway, and where in the log they stand.

    Register a stream before its request is submitted, and bind it after: its epoch may be closed, and
    its first rows may come, while the answer to the submission is still under way.
    """

    def __init__(self, redis: Redis, keys: Keys, steps: StepFeed, on_alive: Callable[[bool], None]) -> None:
        """``steps`` is fed every step; ``on_alive`` is told when a scheduler with a group comes or goes."""
        self._steps = steps
        self._redis = redis
        self._keys = keys
        self._on_alive = on_alive
        self._alive = False
        self._streams: dict[str, TokenStream] = {}  # by request id
        self._rows: dict[int, TokenStream] = {}  # by incarnation, in the current epoch
        self._last = EntryId(0, 0)
        self._stopping = asyncio.Event()
        self.group: log.GroupInfo | None = None

    @property
    def simulated(self) -> bool:
        """Whether the group only pretends to compute."""
        return self.group is not None and self.group.device == "sim"

    def __len__(self) -> int:
        return len(self._streams)

    def register(self, stream: TokenStream) -> None:
        """Raises KeyError where this gateway already runs a stream of that id."""
        request_id = stream.request.request_id
        if request_id in self._streams:
            raise KeyError(request_id)
        self._streams[request_id] = stream

    def bind(self, stream: TokenStream, epoch: int) -> None:
        """The stream's request was accepted in ``epoch``."""
        stream.epoch = epoch
        if epoch < self._last.epoch:
            stream.fail(_closed())

    def remove(self, stream: TokenStream) -> None:
        self._streams.pop(stream.request.request_id, None)
        self._rows = {row: other for row, other in self._rows.items() if other is not stream}

    def unfinished(self) -> list[TokenStream]:
        """The streams whose final word has not come."""
        return [stream for stream in self._streams.values() if not stream.over]

    def fail_all(self, failure: Failure) -> None:
        for stream in self._streams.values():
            stream.fail(failure)

    def stop(self) -> None:
        """Ends ``watch``, and ``follow`` at the latest when its read returns."""
        self._stopping.set()

    async def start(self) -> None:
        """Finds the end of the log. Raises RedisError."""
        newest = cast("list[Entry]", await self._redis.xrevrange(self._keys.results, count=1))
        self._last = EntryId.parse(newest[0][0]) if newest else EntryId(0, 0)

    async def follow(self) -> None:
        """Runs until stopped. Rides out a Redis that is gone for a while; after that, streams end."""
        failing_since: float | None = None
        while not self._stopping.is_set():
            try:
                if failing_since is not None and not self._streams:
                    await self.start()
                replies = cast(
                    "list[tuple[bytes, list[Entry]]]",
                    await self._redis.xread({self._keys.results: str(self._last)}, block=BLOCK_MS),
                )
            except RedisError as error:
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > RECONNECT_SECONDS:
                    self.fail_all(_unavailable(f"Redis does not answer: {error}"))
                await asyncio.sleep(0.1)
                continue
            failing_since = None
            received = time.time_ns()
            for _, entries in replies:
                for raw_id, fields in entries:
                    self._take(EntryId.parse(raw_id), log.ResultEntry.FromString(fields[FIELD]), received)

    def _take(self, entry_id: EntryId, entry: log.ResultEntry, received: int) -> None:
        last, self._last = self._last, entry_id
        if entry.WhichOneof("entry") == "open":
            self._rows.clear()
            for stream in self._streams.values():
                if stream.epoch is not None and stream.epoch < entry_id.epoch:
                    stream.fail(_closed())
            return
        if entry_id.epoch == last.epoch and entry_id.step != last.step + 1:
            logger.warning("results %s to %s were trimmed before they were read", last, entry_id)
            self.fail_all(_unavailable("this gateway fell behind the results log"))
        self._hand_out(entry.result)
        self._steps.put(self._record(entry_id, entry.result, received))

    def _record(self, entry_id: EntryId, result: log.StepResult, received: int) -> control.StepRecord:
        return control.StepRecord(
            epoch=entry_id.epoch,
            step=entry_id.step,
            timing=result.timing,
            decodes=result.decodes,
            prefill_tokens=result.prefill_tokens,
            tokens=len(result.ids),
            wasted_rows=result.wasted_rows,
            simulated=self.simulated,
            received=received,
            handed_out=time.time_ns(),
        )

    def _hand_out(self, result: log.StepResult) -> None:
        for admitted in result.admitted:
            stream = self._streams.get(admitted.request_id)
            if stream is not None:
                self._rows[admitted.incarnation] = stream
                stream.admit(admitted.num_cached)
        if self._rows:
            logprobs = {row.row: row.logprobs for row in result.logprobs}
            for index, incarnation in enumerate(result.incarnations):
                stream = self._rows.get(incarnation)
                if stream is not None:
                    stream.push(result.ids[index], logprobs.get(index), result.finishes[index])
        for ended in result.ended:
            stream = self._streams.get(ended.request_id)
            if stream is not None:
                stream.end(Finish(ended.reason))

    async def watch(self) -> None:
        """Runs until stopped: sees whether a scheduler and a group are alive."""
        missed = 0
        while not self._stopping.is_set():
            try:
                async with self._redis.pipeline(transaction=False) as pipe:
                    pipe.exists(self._keys.lease)
                    pipe.get(self._keys.group)
                    pipe.get(self._keys.serving)
                    leased, group, serving = cast(
                        "tuple[int, bytes | None, bytes | None]", await pipe.execute()
                    )
            except RedisError as error:
                logger.warning("Redis: %s", error)
                leased, group, serving = (
                    0,
                    None,
                    None,
                )  # nothing can be served; whether streams end is follow's decision
            else:
                missed = 0 if leased else missed + 1
                if missed == MISSES:
                    self.fail_all(_unavailable("the scheduler is gone"))
            if group is not None:
                self.group = log.GroupInfo.FromString(group)
            alive = bool(leased) and group is not None and serving == b"1"
            if alive != self._alive:
                self._alive = alive
                self._on_alive(alive)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._stopping.wait()


def _unavailable(message: str) -> Failure:
    return Failure(grpc.StatusCode.UNAVAILABLE, message, retryable=True)


def _closed() -> Failure:
    return _unavailable("the scheduler or the worker group was restarted")
