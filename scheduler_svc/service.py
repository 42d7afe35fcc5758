"""The scheduler service: the loop around the pure core, between the inbox and the logs of its groups.

One thread owns everything. It waits for the inbox and all results at once, settles what has come, places
requests, and publishes plans for the groups that have something to do.
"""

from __future__ import annotations

import logging
import secrets

from albireo.contract.keys import Keys
from albireo.runtime.clock import SYSTEM_CLOCK, Clock, Event
from albireo.runtime.process import Serving
from albireo.store.interface import OpenStore, appended_at
from albireo.store.redis_store import RedisStore
from albireo.telemetry import OFF, Telemetry
from scheduler_svc.core import SchedulerCore
from scheduler_svc.epoch import Epoch
from scheduler_svc.gateway_watch import GatewayWatch
from scheduler_svc.settings import SchedulerSettings
from scheduler_svc.telemetry.turn import TurnTelemetry
from scheduler_svc.watched_time import LOOK_SECONDS

logger = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = LOOK_SECONDS
"""How often the lease is renewed, the groups are looked at, and the load is published."""
LOAD_SECONDS = 10.0
"""How long a published load is valid."""


class SchedulerService:
    """One scheduler of one model. Raises Fenced when another has taken over."""

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
        self._keys = keys = Keys(settings.model_name)
        self._store = open_store() if open_store else RedisStore.open(settings.redis_address, keys)
        self._lease_value = f"scheduler-{secrets.token_hex(8)}".encode()
        self._lease = self._store.lease(keys.lease, self._lease_value, ttl=settings.lease_seconds)
        self._inbox = self._store.log(keys.inbox)
        self._inbox_after = "0-0"
        self._gateway_watch = GatewayWatch(self._store, keys, clock)
        self._telemetry = TurnTelemetry(telemetry)
        self._epoch: Epoch | None = None  # None until it holds the lease
        self._next_housekeeping = 0.0  # by the clock

    @property
    def core(self) -> SchedulerCore | None:
        """That of the epoch, to be read only, in the service's thread; None before it begins."""
        return self._epoch.core if self._epoch else None

    def run(self) -> None:
        """Serves until stopped; gives the lease back at the end."""
        while not self._lease.acquire():
            if self._stop.wait(HOUSEKEEPING_SECONDS):
                return
        try:
            epoch = self._open_epoch()
            while not self._stop.is_set():
                self._turn(epoch)
        finally:
            self._health.set(serving=False)
            self._telemetry.spans.close(self._clock.time_ns())
            self._lease.release()

    def _open_epoch(self) -> Epoch:
        """Whatever an earlier scheduler left running ends here."""
        number, self._inbox_after = self._store.open_epoch(lease_value=self._lease_value)
        logger.info("epoch %d", number)
        self._telemetry.meters.opened(number)
        self._epoch = Epoch(
            number,
            self._settings,
            self._store,
            self._keys,
            self._clock,
            self._telemetry,
            lease_value=self._lease_value,
        )
        return self._epoch

    def _turn(self, epoch: Epoch) -> None:
        if self._clock.now() >= self._next_housekeeping:
            self._next_housekeeping = self._clock.now() + HOUSEKEEPING_SECONDS
            self._housekeeping(epoch)
        inbox = self._keys.inbox
        entries = self._store.read({inbox: self._inbox_after, **epoch.fleet.after}, self._wait_seconds(epoch))
        read_ns = self._clock.time_ns()
        epoch.settle(entries)
        for entry_id, data in entries.get(inbox, ()):
            self._inbox_after = entry_id.decode()
            epoch.receive(data, appended_at(entry_id))
        epoch.publish(self._store.time(), read_ns)
        self._telemetry.report(read_ns)

    def _wait_seconds(self, epoch: Epoch) -> float:
        """Until there is something to do without an entry of a log."""
        until = self._next_housekeeping - self._clock.now()
        deadline = epoch.core.next_deadline()
        if deadline is not None:
            until = min(until, deadline - self._store.time())
        return max(0.0, until) + 1e-3  # behind the moment, not just before it

    def _housekeeping(self, epoch: Epoch) -> None:
        began = self._clock.now()
        self._lease.renew()
        self._telemetry.meters.round_trip.add(self._clock.now() - began)
        epoch.fleet.look()
        epoch.tenants.look()
        self._health.set(serving=bool(epoch.fleet.serving))
        self._gateway_watch.look(epoch.core)
        left = self._inbox.trim(self._inbox_after)
        read = self._inbox_after != "0-0"  # then the last entry that was read is still there
        load = epoch.report(backlog=max(0, left - read))
        self._store.announce(self._keys.load, load.SerializeToString(), ttl=LOAD_SECONDS)
