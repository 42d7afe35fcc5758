"""Follows the results log and hands its rows to the streams of this gateway."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import cast

import grpc
from redis.asyncio import Redis
from redis.exceptions import RedisError

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import Finish
from albireo.store.interface import EntryId
from albireo.store.redis_errors import describe
from albireo.store.redis_store import FIELD
from albireo.telemetry import OFF, Telemetry
from albireo.telemetry.catalogue import STREAMS
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from gateway.store.heartbeat import Heartbeat
from gateway.store.redis_retry import RETRY_SECONDS, RedisRetry
from gateway.streams.branch import Branch, Failure
from gateway.streams.failures import BEHIND, CLOSED, LAPSED, REFUSED, UNREADABLE, unavailable
from gateway.streams.stream import TokenStream
from gateway.telemetry.step_feed import StepFeed

logger = logging.getLogger(__name__)

Entry = tuple[bytes, dict[bytes, bytes]]
Target = tuple[TokenStream, Branch]

BLOCK_MS = 1000


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
        heartbeat: Heartbeat,
        telemetry: Telemetry = OFF,
        *,
        fingerprint: str,
    ) -> None:
        """``steps`` is fed every step; ``heartbeat``: this gateway's; ``fingerprint``: of the checkpoint that
        this gateway reads, which the group's must equal."""
        self._heartbeat = heartbeat
        self._steps = steps
        telemetry.observe(STREAMS, self.__len__)
        self._redis = redis
        self._keys = keys
        self._streams: dict[str, TokenStream] = {}  # by request id
        self._unbound: dict[TokenStream, list[tuple[int, log.StepResult]]] = {}  # with what came since
        self._targets: dict[str, Target] = {}  # by branch name; of bound streams
        self._rows: dict[int, Target] = {}  # by incarnation, in the current epoch
        self._last = EntryId(0, 0)
        self._stopping = asyncio.Event()
        self.group: log.GroupInfo | None = None  # as it was last announced
        self._fingerprint = fingerprint
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
            stream.fail(CLOSED)
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

    async def begin_anew(self) -> None:
        """The logs are gone, or are others. Raises RedisError."""
        self._rows.clear()
        self.fail_all(CLOSED)
        await self.start()

    def stop(self) -> None:
        """Ends ``follow``, at the latest when its read returns."""
        self._stopping.set()

    async def start(self) -> None:
        """Finds the end of the log. Raises RedisError."""
        newest = cast("list[Entry]", await self._redis.xrevrange(self._keys.results, count=1))
        self._last = EntryId.parse(newest[0][0]) if newest else EntryId(0, 0)

    async def follow(self) -> None:
        """Runs until stopped. Rides out a Redis that is gone for a while; after that, streams end."""
        retry = RedisRetry(self._redis)
        while not self._stopping.is_set():
            try:
                if retry.failing and not self._streams:
                    await self.start()
                replies = cast(
                    "list[tuple[bytes, list[Entry]]]",
                    await self._redis.xread({self._keys.results: str(self._last)}, block=BLOCK_MS),
                )
            except RedisError as error:
                if await retry.gives_up(error):
                    self.fail_all(unavailable(describe(error)))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            retry.succeeded()
            received = time.time_ns()
            if replies and self._heartbeat.lapsed:
                self.fail_all(LAPSED)  # before anything that others did about it is taken for an answer
            for _, entries in replies:
                for raw_id, fields in entries:
                    self._take(EntryId.parse(raw_id), fields.get(FIELD, b""), received)

    def _take(self, entry_id: EntryId, data: bytes, received: int) -> None:
        last, self._last = self._last, entry_id
        try:
            entry = codec.result_from_bytes(data)
        except ValueError as error:
            logger.error("result %s cannot be read: %s", entry_id, error)
            self._rows.clear()
            self.fail_all(UNREADABLE)
            return
        if entry.WhichOneof("entry") == "open":
            self._rows.clear()
            for stream in self._streams.values():
                if stream.epoch is not None and stream.epoch < entry_id.epoch:
                    stream.fail(CLOSED)
            return
        if entry_id != EntryId(last.epoch, last.step + 1):
            logger.warning("results %s to %s were trimmed before they were read", last, entry_id)
            self._rows.clear()  # an epoch may have begun in between, and counts incarnations anew
            self.fail_all(BEHIND)
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

    def take_group(self, group: log.GroupInfo) -> None:
        """Takes in what the group announces.

        Streams that a group of another checkpoint has taken already would bring text of no meaning: they end.
        """
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
