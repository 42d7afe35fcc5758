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
from albireo.telemetry import OFF, Telemetry
from albireo.telemetry.catalogue import REDIS_ROUND_TRIP, STREAMS
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from gateway.branch import Branch, Failure
from gateway.steps import StepFeed
from gateway.stream import TokenStream

logger = logging.getLogger(__name__)

Entry = tuple[bytes, dict[bytes, bytes]]
Target = tuple[TokenStream, Branch]

BLOCK_MS = 1000
WATCH_SECONDS = 0.5
# The lease must be seen missing twice: one look can fall between two schedulers.
MISSES = 2


class Follower:
    """The streams of one gateway, and where in the log they stand.

    Register a stream before its request is submitted, and bind it after: its epoch may be closed, and
    its first rows may come, while the answer to the submission is still under way. Results that come in
    between are kept, and once the epoch is known, those of that epoch are handed out: an earlier epoch may
    have had a request of the same id.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        steps: StepFeed,
        on_alive: Callable[[bool], None],
        telemetry: Telemetry = OFF,
        *,
        fingerprint: str,
    ) -> None:
        """``steps`` is fed every step; ``on_alive`` is told when a scheduler with a group comes or goes;
        ``fingerprint``: of the checkpoint that this gateway reads, which the group's must equal."""
        self._steps = steps
        self._round_trip = telemetry.folded(REDIS_ROUND_TRIP)
        telemetry.observe(STREAMS, self.__len__)
        self._redis = redis
        self._keys = keys
        self._on_alive = on_alive
        self._alive = False
        self._streams: dict[str, TokenStream] = {}  # by request id
        self._unbound: dict[TokenStream, list[tuple[int, log.StepResult]]] = {}  # with what came since
        self._targets: dict[str, Target] = {}  # by branch name; of bound streams
        self._rows: dict[int, Target] = {}  # by incarnation, in the current epoch
        self._last = EntryId(0, 0)
        self._stopping = asyncio.Event()
        self._fingerprint = fingerprint
        self.group: log.GroupInfo | None = None
        self.mismatch = ""
        """Why no request may go to the group, which reads another checkpoint; else empty."""

    @property
    def epoch(self) -> int:
        """The one that the results log is in."""
        return self._last.epoch

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
        self._unbound[stream] = []

    def bind(self, stream: TokenStream, epoch: int) -> None:
        """The stream's request was accepted in ``epoch``."""
        stream.epoch = epoch
        targets = {name: (stream, branch) for name, branch in stream.branches.items()}
        rows: dict[int, Target] = {}
        for result_epoch, result in self._unbound.pop(stream):
            if result_epoch == epoch:
                self._hand_out(epoch, result, targets, rows)
        self._targets |= targets
        if epoch < self._last.epoch:
            stream.fail(_closed())
        else:
            self._rows |= rows

    def remove(self, stream: TokenStream) -> None:
        self._streams.pop(stream.request.request_id, None)
        self._unbound.pop(stream, None)
        for name in stream.branches:
            self._targets.pop(name, None)
        self._rows = {row: target for row, target in self._rows.items() if target[0] is not stream}

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
        if entry_id != EntryId(last.epoch, last.step + 1):
            logger.warning("results %s to %s were trimmed before they were read", last, entry_id)
            self._rows.clear()  # an epoch may have begun in between, and counts incarnations anew
            self.fail_all(_unavailable("this gateway fell behind the results log"))
        for results in self._unbound.values():
            results.append((entry_id.epoch, entry.result))
        self._hand_out(entry_id.epoch, entry.result, self._targets, self._rows)
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

    def _hand_out(
        self, epoch: int, result: log.StepResult, targets: dict[str, Target], rows: dict[int, Target]
    ) -> None:
        """Gives ``targets`` what a result of ``epoch`` has for them; ``rows`` is kept up to date."""
        for admitted in result.admitted:
            target = targets.get(admitted.request_id)
            if target is not None and target[0].epoch == epoch:
                rows[admitted.incarnation] = target
                target[1].admit(admitted.num_cached)
        if rows:
            for told in result.prompt_logprobs:
                if told.incarnation in rows:
                    rows[told.incarnation][0].tell_prompt(told.start, told.logprobs)
            logprobs = {row.row: row.logprobs for row in result.logprobs}
            for index, incarnation in enumerate(result.incarnations):
                if incarnation in rows:
                    rows[incarnation][1].push(result.ids[index], logprobs.get(index), result.finishes[index])
        for ended in result.ended:
            target = targets.get(ended.request_id)
            if target is None or target[0].epoch != epoch:
                continue
            reason = Finish(ended.reason)
            if reason is Finish.ERROR:
                target[0].fail(REFUSED)
            else:
                target[1].end(reason)

    async def watch(self) -> None:
        """Runs until stopped: sees whether a scheduler and a group are alive."""
        missed = 0
        while not self._stopping.is_set():
            try:
                async with self._redis.pipeline(transaction=False) as pipe:
                    pipe.exists(self._keys.lease)
                    pipe.get(self._keys.group)
                    pipe.get(self._keys.serving)
                    pipe.get(self._keys.epoch)
                    began = time.perf_counter()
                    leased, group, serving, epoch = cast(
                        "tuple[int, bytes | None, bytes | None, bytes | None]", await pipe.execute()
                    )
                    self._round_trip.add(time.perf_counter() - began)
                if int(epoch or 0) < self._last.epoch:
                    logger.warning("the logs are gone, or begin anew: epoch %s", epoch and epoch.decode())
                    self._rows.clear()
                    self.fail_all(_closed())
                    await self.start()
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
                self._compare(log.GroupInfo.FromString(group))
            alive = bool(leased) and group is not None and serving == b"1" and not self.mismatch
            if alive != self._alive:
                self._alive = alive
                self._on_alive(alive)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._stopping.wait()

    def _compare(self, group: log.GroupInfo) -> None:
        """Streams that a group of another checkpoint has taken already would bring text of no meaning."""
        self.group, before, self.mismatch = group, self.mismatch, ""
        if group.fingerprint != self._fingerprint:
            self.mismatch = (
                f"the worker group's checkpoint (fingerprint {group.fingerprint or 'not announced'}) is not "
                f"this gateway's ({self._fingerprint}): the two need the same config and tokenizer"
            )
        if self.mismatch:
            self.fail_all(Failure(grpc.StatusCode.FAILED_PRECONDITION, self.mismatch, retryable=False))
            if self.mismatch != before:
                logger.error(self.mismatch)


REFUSED = Failure(
    grpc.StatusCode.FAILED_PRECONDITION, "the worker group cannot hold this request", retryable=False
)


def _unavailable(message: str) -> Failure:
    return Failure(grpc.StatusCode.UNAVAILABLE, message, retryable=True)


def _closed() -> Failure:
    return _unavailable("the scheduler or the worker group was restarted")
