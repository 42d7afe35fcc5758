"""Reads the notices and the results of all groups, and passes on what they hold.

One task of the event loop runs it (``ResultsReader.run``, started by the gateway). It is the only part of the
streams that follows the store's logs.
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
from gateway.store.interface import Entries, GatewayStore, Position
from gateway.store.retry import RETRY_SECONDS, StoreRetry
from gateway.streams.failures import BEHIND, CLOSED, LAPSED, UNREADABLE, Failure, unavailable
from gateway.streams.followed_group import FollowedGroup, Gap
from gateway.streams.group_names import GroupNames
from gateway.streams.router import Router

logger = logging.getLogger(__name__)

OnStep = Callable[[str, EntryId, log.StepResult, int], None]

READ_SECONDS = 1.0
"""Longest wait of one read for new entries."""


class ResultsReader:
    """The position of one gateway in the logs.

    A group's results are followed from the notice of its opening to the entry that closes them. Rows carry
    their position in the answer (see ``Branch``), so it does not matter in which order the logs are read.
    """

    def __init__(
        self, store: GatewayStore, clock: Clock, router: Router, heartbeat: Heartbeat, on_step: OnStep
    ) -> None:
        """``heartbeat``: this gateway's. ``on_step`` is called with every step's group (its name), its entry
        id, its result and the time at which it was received (nanoseconds since the Unix epoch), after its
        rows have been routed."""
        self._store = store
        self._clock = clock
        self._router = router
        self._heartbeat = heartbeat
        self._on_step = on_step
        self._names = GroupNames(store, clock)
        self._notices = EntryId(0, 0)  # the last that was read
        self._followed: dict[str, FollowedGroup] = {}  # by incarnation
        self._starts = 0
        self._lost: Failure | None = None  # why reading has to begin anew
        self._stopping = asyncio.Event()

    @property
    def position(self) -> Position:
        """Ids of the last entries that were read."""
        return Position(self._notices, {group: found.last for group, found in self._followed.items()})

    async def start(self) -> None:
        """Moves to the ends of the logs. What lies before them is not read, so all streams that are there
        fail. Raises RedisError."""
        position = await self._store.position()
        self._router.fail_all(self._lost or CLOSED)
        self._router.restart(position.notices.epoch)
        self._notices = position.notices
        self._followed = {group: FollowedGroup(group, last) for group, last in position.groups.items()}
        self._starts += 1
        self._lost = None

    async def run(self) -> None:
        """Reads until stopped. Retries failed calls; after RECONNECT_SECONDS of failures all streams fail."""
        retry = StoreRetry(self._store, self._clock)
        while not self._stopping.is_set():
            try:
                if self._lost is not None or (retry.failing and not len(self._router)):
                    await self.start()
                await self._names.complete(self._followed)
                await self._read()
            except RedisError as error:
                if await retry.gives_up(error):
                    self._router.fail_all(unavailable(describe(error)))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                retry.succeeded()

    def stop(self) -> None:
        """Ends ``run``, at the latest when its blocking read returns."""
        self._stopping.set()

    async def _read(self) -> None:
        """One read. Raises RedisError."""
        starts, ending = self._starts, [group for group, found in self._followed.items() if found.ending]
        entries = await self._store.read(self.position, READ_SECONDS)
        received = self._clock.time_ns()
        if self._starts != starts:  # the watch has moved the position meanwhile
            return
        if (entries.results or entries.notices) and self._heartbeat.lapsed:
            # First: their cancellations by the scheduler must not reach clients as answers.
            self._router.fail_all(LAPSED)
        try:
            self._take(entries, received)
            if lost := [group for group in ending if group in self._followed]:
                raise Gap(f"results of groups {', '.join(lost)} are gone, unread")
        except Gap as gap:
            # Of any stream: its next admission may have been in an entry that is lost.
            logger.warning("%s", gap)
            self._lost = BEHIND
        except ValueError as error:
            logger.error("a notice cannot be read: %s", error)
            self._lost = UNREADABLE

    def _take(self, entries: Entries, received: int) -> None:
        """Raises Gap where entries are lost, ValueError for a notice that cannot be read."""
        for group, found in entries.results.items():
            for raw_id, data in found:
                if group in self._followed:  # until it is closed
                    self._take_result(group, EntryId.parse(raw_id), data, received)
        for raw_id, data in entries.notices:
            self._take_notice(EntryId.parse(raw_id), data)

    def _take_result(self, group: str, entry_id: EntryId, data: bytes, received: int) -> None:
        entry = self._followed[group].take(entry_id, data)
        if entry is None:
            return
        match entry.WhichOneof("entry"):
            case "open":
                self._names.put(group, entry.open.name)
                self._router.forget(group)
                self._router.open_epoch(entry_id.epoch)
            case "close":
                self._drop(group)
            case "result":
                self._router.result(group, entry_id.epoch, entry.result)
                self._on_step(self._names.get(group), entry_id, entry.result, received)

    def _take_notice(self, entry_id: EntryId, data: bytes) -> None:
        last, self._notices = self._notices, entry_id
        if entry_id.step and entry_id != EntryId(last.epoch, last.step + 1):
            raise Gap(f"notices {last} to {entry_id} are gone, unread")
        notice = codec.notice_from_bytes(data)
        match notice.WhichOneof("entry"):
            case "open":
                self._router.open_epoch(entry_id.epoch)
                for group in list(self._followed):
                    if self._followed[group].last.epoch < entry_id.epoch:
                        self._drop(group)
            case "group_open":
                self._follow(notice.group_open, entry_id.epoch)
            case "group_closed":
                if (followed := self._followed.get(notice.group_closed.group)) is not None:
                    followed.ending = True
            case "ended":
                self._router.ended(entry_id.epoch, notice.ended.ended)

    def _follow(self, opening: log.GroupOpen, epoch: int) -> None:
        """Begins with the results of a group, unless they are being read already."""
        group = opening.group
        self._names.put(group, opening.name)
        if group not in self._followed or self._followed[group].last.epoch < epoch:
            self._followed[group] = FollowedGroup(group, EntryId(epoch, 0))
            self._router.forget(group)

    def _drop(self, group: str) -> None:
        """It is closed, or not led in this epoch: nothing more comes of it."""
        del self._followed[group]
        self._names.forget(group)
        self._router.forget(group)
