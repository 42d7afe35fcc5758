"""One epoch: a tenure of the scheduler, with its core, the groups that it leads, and its notices.

The service's thread calls it: ``settle`` and ``receive`` with what has been read, then ``publish``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from albireo.contract.keys import Keys
from albireo.contract.plan import Submission, public_name
from albireo.runtime.clock import Clock
from albireo.store.interface import LogEntry, Store
from albireo.telemetry.logs import about
from albireo.v1 import control_pb2 as control
from scheduler_svc.core import Limits, SchedulerCore
from scheduler_svc.fleet import Fleet
from scheduler_svc.inbox_check import BadEntry, inbox_entry
from scheduler_svc.notices import Notices
from scheduler_svc.publishing import Publisher
from scheduler_svc.settings import SchedulerSettings
from scheduler_svc.telemetry.load import LoadReport
from scheduler_svc.telemetry.turn import TurnTelemetry
from scheduler_svc.tenant_accounts import TenantAccounts
from scheduler_svc.wait_forecast import WaitForecast

logger = logging.getLogger(__name__)


class Epoch:
    """What the scheduler does from the opening of an epoch until it stops, or another takes over."""

    def __init__(
        self,
        number: int,
        settings: SchedulerSettings,
        store: Store,
        keys: Keys,
        clock: Clock,
        telemetry: TurnTelemetry,
        *,
        lease_value: bytes,
    ) -> None:
        """Raises ValueError where the limits of ``settings`` make no sense."""
        self.number = number
        self.core = SchedulerCore(_limits(settings), epoch=number, salt=settings.cache_salt.encode())
        self._store = store
        self._telemetry = telemetry
        self._notices = Notices(number, store, keys)
        self._publisher = Publisher(store, clock, keep=settings.log_entries)
        self._clock = clock
        self._load = LoadReport()
        self._forecast = WaitForecast(clock.now())
        self.tenants = TenantAccounts(number, self.core, store, clock, served=telemetry.meters.served)
        self._departed = 0  # requests that have left the queue
        self._reported = 0  # of these, at the last report
        self.fleet = Fleet(
            number,
            self.core,
            settings,
            store,
            keys,
            self._notices,
            clock,
            telemetry,
            lease_value=lease_value,
        )

    def settle(self, entries: Mapping[str, list[LogEntry]]) -> None:
        """Takes in entries of the groups' results. Raises Fenced."""
        self.fleet.settle(entries)

    def receive(self, data: bytes, arrived: float) -> None:
        """Takes in an entry of the inbox that was appended at ``arrived``, in the store's time."""
        model = self.fleet.model
        try:
            entry = inbox_entry(data, model.vocab_size if model else 0)
        except BadEntry as error:
            self._refuse(error.submission, error)
            return
        if isinstance(entry, str):
            self.core.cancel(entry)
            return
        try:
            self.core.submit(entry, arrived)
        except ValueError as error:  # the gateway knew a group that holds more
            self._refuse(entry, error)
        else:
            self._telemetry.submitted(entry)

    def publish(self, now: float, began_ns: int) -> None:
        """Finds groups for requests, appends every plan that is due at ``now``, in the store's time, and the
        ends of requests that waited. ``began_ns``: when the entries that led to them had been read, in
        nanoseconds of the Unix epoch. Raises Fenced."""
        core = self.core
        core.expire(now)
        core.place()
        self._publisher.publish(self.fleet.to_plan(), now, began_ns)
        if ends := core.take_ended():
            self._notices.ended(ends)
            self._telemetry.ended(ends)
        if departures := core.take_departures():
            self._departed += departures
            self._store.count_departures(epoch=self.number, total=self._departed)
        self.tenants.report()

    def report(self, backlog: int) -> control.Load:
        """The present state, for gateways; updates the metrics. ``backlog``: entries of the inbox that are
        not read yet."""
        stats, groups = self.core.stats(), [group.report() for group in self.fleet.serving]
        departures, self._reported = self._departed - self._reported, self._departed
        self._forecast.observe(self._clock.now(), waiting=stats.waiting, departures=departures)
        wait = self._forecast.seconds(waiting=stats.waiting, free_slots=stats.slots_free)
        load = self._load.message(self.number, self.core, stats, groups, wait_seconds=wait)
        self._telemetry.meters.update(load, groups, backlog=backlog)
        return load

    def _refuse(self, submission: Submission | None, error: ValueError) -> None:
        """``submission``: the one that ends for its gateway; None where no gateway can wait for it."""
        if submission is None:
            logger.warning("an entry of the inbox is ignored: %s", error)
            return
        request_id = public_name(submission.request_id)
        logger.warning("request %s: %s", request_id, error, extra=about(request_id))
        self.core.refuse(submission)


def _limits(settings: SchedulerSettings) -> Limits:
    return Limits(
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_seqs=settings.max_num_seqs,
        prefill_chunk=settings.prefill_chunk,
        max_in_flight=settings.window().largest,
        prefix_cache=settings.prefix_cache,
        shared_prefix_cache=settings.shared_prefix_cache,
        priority_seconds=settings.priority_seconds,
        prefill_weight=settings.prefill_weight,
        decode_weight=settings.decode_weight,
    )
