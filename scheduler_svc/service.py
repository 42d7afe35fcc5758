"""The scheduler service: the loop around the pure core, between the three logs.

One thread owns everything. It waits for the inbox and the results log at once, settles what has come,
and publishes plans as long as the core has one to give.
"""

from __future__ import annotations

import logging
import secrets

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.runtime.clock import SYSTEM_CLOCK, Clock, Event
from albireo.runtime.process import Serving
from albireo.store.interface import EntryId, Fenced, OpenStore, appended_at
from albireo.store.redis_store import RedisStore
from albireo.telemetry import OFF, Telemetry
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import ProtocolError, SchedulerCore
from scheduler_svc.epoch import Epoch
from scheduler_svc.gateway_watch import GatewayWatch
from scheduler_svc.group_watch import GroupWatch
from scheduler_svc.settings import SchedulerSettings
from scheduler_svc.telemetry.load import LoadReport
from scheduler_svc.telemetry.turn import TurnTelemetry

logger = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 0.25
"""How often the lease is renewed, the group's announcement read, and the load published."""
LOAD_SECONDS = 10.0
"""How long a published load is valid."""


class SchedulerService:
    """One scheduler of one worker group. Raises Fenced when another has taken over."""

    def __init__(
        self,
        settings: SchedulerSettings,
        health: Serving,
        stop: Event,
        telemetry: Telemetry = OFF,
        *,
        clock: Clock = SYSTEM_CLOCK,
        open_store: OpenStore | None = None,
    ) -> None:
        """``open_store``: Redis at the address of ``settings`` by default."""
        self._settings = settings
        self._health = health
        self._stop = stop
        self._clock = clock
        self._keys = keys = Keys(settings.model_name, settings.group)
        self._store = open_store() if open_store else RedisStore.open(settings.redis_address, keys)
        self._lease_value = f"scheduler-{secrets.token_hex(8)}".encode()
        self._lease = self._store.lease(keys.lease, self._lease_value, ttl=settings.lease_seconds)
        self._inbox = self._store.log(keys.inbox)
        self._plans = self._store.log(keys.plans, keep=settings.log_entries)
        self._group_watch = GroupWatch(self._store, keys.group)
        self._gateway_watch = GatewayWatch(self._store, keys, clock)
        self._telemetry = TurnTelemetry(telemetry)
        self._had_group = False  # ever
        self._epoch_number = 0
        self._epoch: Epoch | None = None  # None: no group is there
        self._load = LoadReport()
        self._inbox_after = "0-0"
        self._results_after = "0-0"
        self._next_housekeeping = 0.0  # by the clock

    @property
    def core(self) -> SchedulerCore | None:
        """That of the current epoch, to be read only, in the service's thread; None without a group."""
        return self._epoch.core if self._epoch else None

    def run(self) -> None:
        """Serves until stopped; gives the lease back at the end."""
        while not self._lease.acquire():
            if self._stop.wait(HOUSEKEEPING_SECONDS):
                return
        try:
            # Whatever an earlier scheduler left running ends here, group or no group.
            self._open_epoch(self._group_watch.look(None), "start")
            while not self._stop.is_set():
                self._turn()
        finally:
            self._health.set(serving=False)
            self._telemetry.spans.close(self._clock.time_ns())
            self._lease.release()

    def _turn(self) -> None:
        if self._clock.now() >= self._next_housekeeping:
            self._next_housekeeping = self._clock.now() + HOUSEKEEPING_SECONDS
            self._housekeeping()
        logs = {self._keys.inbox: self._inbox_after, self._keys.results: self._results_after}
        entries = self._store.read(logs, self._wait_seconds())
        read_ns = self._clock.time_ns()
        for entry_id, data in entries.get(self._keys.results, ()):
            self._results_after = entry_id.decode()
            self._settle(EntryId.parse(entry_id), data)
        for entry_id, data in entries.get(self._keys.inbox, ()):
            self._inbox_after = entry_id.decode()
            if self._epoch is not None:  # else accepted just before the group was lost: its gateway ends it
                self._epoch.receive(data, appended_at(entry_id))
        if self._epoch is not None:
            self._epoch.publish(self._store.time(), read_ns)
            self._telemetry.report(read_ns)

    def _wait_seconds(self) -> float:
        """Until there is something to do without an entry of a log."""
        until = self._next_housekeeping - self._clock.now()
        deadline = self._epoch.core.next_deadline() if self._epoch else None
        if deadline is not None:
            until = min(until, deadline - self._store.time())
        return max(0.0, until) + 1e-3  # behind the moment, not just before it

    def _settle(self, entry_id: EntryId, data: bytes) -> None:
        if entry_id.epoch < self._epoch_number:
            return
        try:
            entry = codec.result_from_bytes(data)
        except ValueError as error:
            raise ProtocolError(f"result {entry_id}: {error}") from error
        if entry.WhichOneof("entry") == "open":
            if entry_id.epoch > self._epoch_number:
                raise Fenced(f"epoch {entry_id.epoch} was opened by another scheduler")
        elif self._epoch is not None and entry_id.epoch == self._epoch_number:
            self._epoch.settle(entry_id.step, entry.result)

    def _housekeeping(self) -> None:
        began = self._clock.now()
        self._lease.renew()
        self._telemetry.meters.round_trip.add(self._clock.now() - began)
        known = self._epoch.group if self._epoch else None
        group = self._group_watch.look(known)
        if (group.incarnation if group else None) != (known.incarnation if known else None):
            self._open_epoch(group, "group_joined" if group else "group_lost")
        core = self.core
        if core is not None:
            self._gateway_watch.look(core)
        stats = core.stats() if core else None
        load = self._load.message(core, stats, self._epoch_number)
        self._store.announce(self._keys.load, load.SerializeToString(), ttl=LOAD_SECONDS)
        left = self._inbox.trim(self._inbox_after)
        read = self._inbox_after != "0-0"  # then the last entry that was read is still there
        self._telemetry.meters.update(
            stats,
            epoch=self._epoch_number,
            look_ahead=self._epoch.look_ahead if self._epoch else self._settings.window().size - 1,
            backlog=max(0, left - read),
        )

    def _open_epoch(self, group: log.GroupInfo | None, reason: str) -> None:
        """Begins anew: requests of the last epoch are given up, their streams end at the gateways."""
        last = self._epoch.core.stats() if self._epoch else None
        self._epoch_number, self._inbox_after = self._store.open_epoch(
            lease_value=self._lease_value, group_incarnation=group.incarnation if group else ""
        )
        self._results_after = str(EntryId(self._epoch_number, 0))
        failover = ""
        if reason == "start":
            failover = "scheduler" if self._epoch_number > 1 else ""
        elif group is not None and self._had_group:
            failover = "group"
        self._had_group = self._had_group or group is not None
        self._telemetry.meters.opened(self._epoch_number, reason, failover=failover, last=last)
        self._telemetry.spans.close(self._clock.time_ns())
        self._load = LoadReport()
        self._epoch = None if group is None else self._new_epoch(group)
        self._health.set(serving=group is not None)
        incarnation = f"group {group.incarnation}" if group else "no group"
        logger.info("epoch %d: %s", self._epoch_number, incarnation)

    def _new_epoch(self, group: log.GroupInfo) -> Epoch:
        return Epoch(
            self._epoch_number, group, self._settings, self._store, self._plans, self._clock, self._telemetry
        )
