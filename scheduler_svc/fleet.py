"""The groups that the scheduler leads: which have registered, which join, and which must be closed.

The epoch owns it. ``look`` is due a few times a second; ``settle`` gets what the results logs hold.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.message import DecodeError

from albireo.contract.keys import Keys
from albireo.runtime.clock import Clock
from albireo.store.interface import EntryId, GroupOpening, LogEntry, Store
from albireo.v1 import log_pb2 as log
from scheduler_svc.announcement import BadAnnouncement, free_name, group_info, served_model, shape
from scheduler_svc.core import GroupCore, ProtocolError, SchedulerCore, Speed
from scheduler_svc.group_watch import MISSES, Closing, GroupWatch
from scheduler_svc.led_group import LedGroup
from scheduler_svc.notices import Notices
from scheduler_svc.settings import SchedulerSettings
from scheduler_svc.telemetry.turn import TurnTelemetry
from scheduler_svc.watched_time import WatchedTime

logger = logging.getLogger(__name__)

NO_ENTRY = str(EntryId(0, 0))
"""What a log says of its last entry where it has none."""


class Fleet:
    """Opens groups, closes them, and has their results settled."""

    def __init__(
        self,
        epoch: int,
        core: SchedulerCore,
        settings: SchedulerSettings,
        store: Store,
        keys: Keys,
        notices: Notices,
        clock: Clock,
        telemetry: TurnTelemetry,
        *,
        lease_value: bytes,
    ) -> None:
        self._epoch = epoch
        self._core = core
        self._settings = settings
        self._store = store
        self._keys = keys
        self._notices = notices
        self._clock = clock
        self._telemetry = telemetry
        self._lease_value = lease_value
        self._watched = WatchedTime(clock)
        self._opened: set[str] = set()  # group incarnations: each is opened once
        self._refused: dict[str, str] = {}  # why a registered group is left alone
        self._silent: dict[str, int] = {}  # looks in a row that found a group registered and not announced
        self.led: dict[str, LedGroup] = {}
        """By the key of their results; those that are being closed included."""
        self._by_core: dict[GroupCore, LedGroup] = {}
        self.model = _stored_model(store, keys)
        """What the groups have in common; None where none has ever joined."""

    @property
    def serving(self) -> list[LedGroup]:
        """The groups that get plans."""
        return [group for group in self.led.values() if group.closing is None]

    def to_plan(self) -> list[LedGroup]:
        """The serving groups whose next plan may have something to do."""
        touched = [self._by_core[core] for core in self._core.touched]
        return [group for group in touched if group.closing is None]

    @property
    def after(self) -> dict[str, str]:
        """Up to which entry the results of each group have been read, by the key of the log."""
        return {key: group.after for key, group in self.led.items()}

    def look(self) -> None:
        """Looks at registrations and signs of life. Raises Fenced and RedisError."""
        self._watched.look()
        self._leave_lost()
        registered = self._store.groups()
        self._check(registered)
        others = {name: data for name, data in registered.items() if name not in self._opened}
        for incarnation, announcement in others.items():
            if announcement is not None:
                self._consider(incarnation, announcement)
        self._bury(name for name, data in others.items() if data is None)
        self._refused = {name: why for name, why in self._refused.items() if name in others}

    def settle(self, entries: Mapping[str, list[LogEntry]]) -> None:
        """Takes in what was read from the results logs. A group that breaks the protocol is closed; one
        whose results have been read to their end gives its requests back. Raises Fenced."""
        for key, found in entries.items():
            group = self.led.get(key)
            if group is None:  # the inbox
                continue
            try:
                group.settle(found)
            except ProtocolError as error:
                self._close(group, Closing("protocol", f"it broke the protocol: {error}"))
            if group.closed:
                self._leave(group)

    def _leave_lost(self) -> None:
        """Closed logs expire. Where the scheduler stood still until the results of a group that it had closed
        were gone, no entry closes them any more: what has settled is all there is."""
        for group in [group for group in self.led.values() if group.closing is not None]:
            if self._store.log(group.results).last() == NO_ENTRY:
                logger.warning("epoch %d: the last results of group %s are gone", self._epoch, group.name)
                self._leave(group)

    def _check(self, registered: Mapping[str, bytes | None]) -> None:
        """Closes the groups that have left, and those that are dead."""
        groups = self.serving
        keys = [key for group in groups for key in group.ranks]
        beats: Iterator[bytes | None] = iter(self._store.get(keys) if keys else ())
        for group in groups:
            found = [next(beats) for _ in group.ranks]
            incarnation = group.opening.group
            closing = group.watch.look(registered.get(incarnation) is not None, found)
            if incarnation not in registered:
                closing = Closing("left", "it left")
            if closing is not None:
                self._close(group, closing)

    def _consider(self, incarnation: str, announcement: bytes) -> None:
        """Opens a group that has registered, unless it cannot be led; that is logged once."""
        try:
            self._open(incarnation, announcement)
        except ValueError as error:
            if self._refused.get(incarnation) != str(error):
                self._refused[incarnation] = str(error)
                logger.warning("group %s is not led: %s", incarnation, error)

    def _open(self, incarnation: str, announcement: bytes) -> None:
        """Raises ValueError where the announcement is bad, or the limits do not fit."""
        info = group_info(incarnation, announcement)
        others = [group.info for group in self.serving]
        if any(other.fingerprint != info.fingerprint for other in others):
            raise BadAnnouncement(
                f"its checkpoint (fingerprint {info.fingerprint}) is not that of the groups that serve"
            )
        name = free_name(info.name, {group.name for group in self.led.values()})
        core = self._core.join(
            name,
            shape(info),
            speed=Speed(step_seconds=info.step_seconds, prefill_token_seconds=info.prefill_token_seconds),
        )
        opening = GroupOpening(self._epoch, incarnation, name)
        self._opened.add(incarnation)
        if self.model is not None and self.model.fingerprint != info.fingerprint:
            # Their token ids are those of the other checkpoint's vocabulary.
            count = self._core.give_up()
            logger.warning("another checkpoint is served: %d requests to the last one are given up", count)
        self._put_model([*others, info])
        self._store.open_group(opening, notice=self._notices.next(), lease_value=self._lease_value)
        group = self._led(opening, info, core)
        self.led[group.results] = self._by_core[core] = group
        logger.info("epoch %d: group %s, %s, joins", self._epoch, name, incarnation)

    def _bury(self, silent: Iterable[str]) -> None:
        """Closes registered groups that died before they could be led: nothing else ends their logs."""
        self._silent = {name: self._silent.get(name, 0) + 1 for name in silent}
        for incarnation in [name for name, looks in self._silent.items() if looks >= MISSES]:
            opening = GroupOpening(self._epoch, incarnation, "")
            self._close_logs(opening, "its announcement had expired before it was led")

    def _led(self, opening: GroupOpening, info: log.GroupInfo, core: GroupCore) -> LedGroup:
        return LedGroup(
            opening,
            info,
            core,
            self._settings.window(),
            GroupWatch(info.tp, self._watched, self._settings.heartbeat_seconds),
            keys=self._keys,
            clock=self._clock,
            telemetry=self._telemetry,
        )

    def _close(self, group: LedGroup, closing: Closing) -> None:
        """Closes the logs of a group: what it reports is at its end, which is read next."""
        if group.closing is not None:
            return
        group.closing = closing
        self._close_logs(group.opening, closing.text)
        level = logging.WARNING if closing.died else logging.INFO
        logger.log(level, "epoch %d: group %s is closed: %s", self._epoch, group.name, closing.text)
        if infos := [other.info for other in self.serving]:
            self._put_model(infos)

    def _close_logs(self, opening: GroupOpening, reason: str) -> None:
        self._store.close_group(opening, reason, notice=self._notices.next(), lease_value=self._lease_value)

    def _leave(self, group: LedGroup) -> None:
        """All results of a group that are there have settled: its requests go back to the queue."""
        assert group.closing is not None
        stats = group.core.stats()
        self._core.leave(group.core, died=group.closing.died)
        del self.led[group.results], self._by_core[group.core]
        self._telemetry.group_closed(group.name, group.closing.cause, stats)

    def _put_model(self, infos: list[log.GroupInfo]) -> None:
        """Writes what the groups have in common, where that has changed."""
        model = served_model(infos)
        if model != self.model:
            self._store.put(self._keys.served_model, model.SerializeToString())
            self.model = model


def _stored_model(store: Store, keys: Keys) -> log.ServedModel | None:
    [stored] = store.get([keys.served_model])
    try:
        return None if stored is None else log.ServedModel.FromString(stored)
    except DecodeError as error:
        logger.warning("the served model cannot be read: %s", error)
        return None
