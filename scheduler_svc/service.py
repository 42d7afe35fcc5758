"""The scheduler service: a thin loop around the pure core, between the three logs.

One thread owns everything. It waits for the inbox and the results log at once, settles what has come,
and publishes plans as long as the core has one to give.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import cast

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape, Plan, StepResult, Submission, public_name
from albireo.runtime.process import HealthServer, freeze_heap
from albireo.store.logs import (
    EntryId,
    Fenced,
    Lease,
    StepLog,
    announce,
    connect,
    depart,
    open_epoch,
    read_streams,
    ride_out,
)
from albireo.telemetry import OFF, Telemetry
from albireo.telemetry.logs import about
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import Limits, ProtocolError, SchedulerCore
from scheduler_svc.gateway_watch import Gateways
from scheduler_svc.group_watch import GroupWatch
from scheduler_svc.inbox_check import BadEntry, inbox_entry
from scheduler_svc.settings import SchedulerSettings
from scheduler_svc.telemetry.load import IntegrityCheck, load_message
from scheduler_svc.telemetry.meters import SchedulerMeters
from scheduler_svc.telemetry.queue_spans import QueueSpans

logger = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 0.25
"""How often the lease is renewed, the group looked at, and the load published."""
LOAD_SECONDS = 10.0
"""How long the last word on the load is believed."""


class SchedulerService:
    """One scheduler of one worker group. Raises Fenced when another has taken over."""

    def __init__(
        self,
        settings: SchedulerSettings,
        health: HealthServer,
        stop: threading.Event,
        telemetry: Telemetry = OFF,
    ) -> None:
        self._settings = settings
        self._health = health
        self._stop = stop
        self._keys = Keys(settings.model_name, settings.group)
        self._redis = connect(settings.redis_address)
        self._lease_value = f"scheduler-{time.time_ns():x}-{id(self):x}".encode()
        self._lease = Lease(
            self._redis,
            self._keys.lease,
            self._lease_value,
            ttl=settings.lease_seconds,
            epoch_key=self._keys.epoch,
        )
        self._plans = StepLog(self._redis, self._keys.plans, keep=settings.log_entries)
        self._group: log.GroupInfo | None = None
        self._group_watch = GroupWatch(self._redis, self._keys.group)
        self._had_group = False  # ever
        self._gateways = Gateways(self._redis, self._keys)
        self._core: SchedulerCore | None = None
        self._epoch = 0
        self._departed = 0  # since the epoch opened
        self._inbox_after = "0-0"
        self._results_after = "0-0"
        self._next_housekeeping = 0.0
        self._window = settings.window()
        self._integrity = IntegrityCheck()
        self._published_ns = 0  # when Redis had acknowledged the last plan
        self._sampled_ns = 0  # when the sampling of the last settled step ended, on rank 0
        self._meters = SchedulerMeters(telemetry)
        self._spans = QueueSpans(telemetry.tracer)
        # Told of once all plans that are due have been published.
        self._submitted: list[Submission] = []
        self._settled: list[tuple[StepResult, log.StepResult, float | None]] = []
        self._published: list[tuple[Plan, int]] = []

    def run(self) -> None:
        """Serves until stopped; gives the lease back at the end."""
        while not self._lease.acquire():
            if self._stop.wait(HOUSEKEEPING_SECONDS):
                return
        try:
            # Whatever an earlier scheduler left running ends here, group or no group.
            self._open_epoch(self._group_watch.look(None), "start")
            freeze_heap()
            while not self._stop.is_set():
                self._turn()
        finally:
            self._health.set(serving=False)
            self._spans.close(time.time_ns())
            self._lease.release()

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING_SECONDS
            self._housekeeping()
        streams = {self._keys.inbox: self._inbox_after, self._keys.results: self._results_after}
        replies = read_streams(self._redis, streams, block_ms=self._wait_ms(now))
        began_ns, now = time.time_ns(), time.monotonic()
        for entry_id, data in replies.get(self._keys.results, ()):
            self._results_after = entry_id.decode()
            self._settle(EntryId.parse(entry_id), data)
        for entry_id, data in replies.get(self._keys.inbox, ()):
            self._inbox_after = entry_id.decode()
            self._receive(data, now)
        if self._core is not None:
            self._core.expire(now)
            self._publish(self._core, now, began_ns)
            self._tell(began_ns)

    def _wait_ms(self, now: float) -> int:
        until = self._next_housekeeping
        deadline = self._core.next_deadline() if self._core else None
        if deadline is not None:
            until = min(until, deadline)
        return int(max(0.0, until - now) * 1000) + 1

    def _settle(self, entry_id: EntryId, data: bytes) -> None:
        if entry_id.epoch < self._epoch:
            return
        try:
            entry = codec.result_from_bytes(data)
        except ValueError as error:
            raise ProtocolError(f"result {entry_id}: {error}") from error
        if entry.WhichOneof("entry") == "open":
            if entry_id.epoch > self._epoch:
                raise Fenced(f"epoch {entry_id.epoch} was opened by another scheduler")
        elif self._core is not None and entry_id.epoch == self._epoch:
            result = codec.result_from_proto(entry_id.epoch, entry_id.step, entry.result)
            self._core.settle(result)
            self._settled.append((result, entry.result, self._observe(self._core, entry.result)))

    def _receive(self, data: bytes, now: float) -> None:
        core, group = self._core, self._group
        if core is None or group is None:  # accepted just before the group was lost: the gateway has ended it
            return
        try:
            entry = inbox_entry(data, group.vocab_size)
        except BadEntry as error:
            self._refuse(core, error.submission, error)
            return
        if isinstance(entry, str):
            core.cancel(entry)
            return
        try:
            core.submit(entry, now)
        except ValueError as error:  # the gateway knew only an earlier group, one that holds more
            self._refuse(core, entry, error)
        else:
            self._submitted.append(entry)

    def _refuse(self, core: SchedulerCore, submission: Submission | None, error: ValueError) -> None:
        """``submission``: the one that ends for its gateway; None where no gateway can wait for it."""
        if submission is None:
            logger.warning("an entry of the inbox is passed over: %s", error)
            return
        request_id = public_name(submission.request_id)
        logger.warning("request %s: %s", request_id, error, extra=about(request_id))
        core.refuse(submission)

    def _observe(self, core: SchedulerCore, result: log.StepResult) -> float | None:
        """Sizes the window by how long rank 0 waited for a plan, and returns that. With no row decoding, it
        waited for work: None."""
        timing, waited = result.timing, None
        if result.decodes and self._sampled_ns:
            waited = (timing.fetched - self._sampled_ns) / 1e9
            self._window.observe(waited)
            core.set_window(self._window.size)
        self._sampled_ns = timing.sampling_end
        return waited

    def _publish(self, core: SchedulerCore, now: float, began_ns: int) -> None:
        while (plan := core.plan(now)) is not None:
            timing = control.StepTiming(
                plan_begin=began_ns,
                plan_end=time.time_ns(),
                previous_published=self._published_ns,
                settled_step=core.settled_step,
                look_ahead=self._window.size - 1,
            )
            self._plans.append(EntryId(plan.epoch, plan.step), codec.plan_to_bytes(plan, timing))
            began_ns = self._published_ns = time.time_ns()
            self._published.append((plan, self._published_ns))
        departures = core.take_departures()
        if departures:
            self._departed += departures
            depart(self._redis, self._keys, epoch=self._epoch, total=self._departed)

    def _tell(self, read_ns: int) -> None:
        """Metrics and spans of what was read at ``read_ns`` and of what came of it."""
        for submission in self._submitted:
            self._spans.submitted(submission, read_ns)
        for plan, at in self._published:
            self._spans.published(plan, at)
        for result, message, waited in self._settled:
            self._spans.settled(result)
            if self._meters.wanted:
                self._meters.step(result, message, waited)
        self._submitted.clear()
        self._published.clear()
        self._settled.clear()

    def _housekeeping(self) -> None:
        began = time.perf_counter()
        self._lease.renew()
        self._meters.round_trip.add(time.perf_counter() - began)
        group = self._group_watch.look(self._group)
        if (group.incarnation if group else None) != (self._group.incarnation if self._group else None):
            self._open_epoch(group, "group_joined" if group else "group_lost")
        if self._core is not None:
            self._gateways.look(self._core, time.monotonic())
        stats = self._core.stats() if self._core else None
        message = load_message(self._core, stats, self._epoch, self._integrity)
        data = message.SerializeToString()
        ride_out(self._redis, lambda: announce(self._redis, self._keys.load, data, ttl=LOAD_SECONDS))
        kept = ride_out(self._redis, self._trim_inbox)
        read = self._inbox_after != "0-0"  # then the last entry that was is still there
        self._meters.update(
            stats, epoch=self._epoch, look_ahead=self._window.size - 1, backlog=max(0, kept - read)
        )

    def _trim_inbox(self) -> int:
        """Removes what has been read, but for the last of it; returns how many entries there are then."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.xtrim(self._keys.inbox, minid=self._inbox_after, approximate=False)
            pipe.xlen(self._keys.inbox)
            _, kept = cast("tuple[int, int]", pipe.execute())
        return kept

    def _open_epoch(self, group: log.GroupInfo | None, reason: str) -> None:
        """Begins anew: requests of the last epoch are given up, their streams end at the gateways."""
        last = self._core.stats() if self._core else None
        self._epoch, self._inbox_after = open_epoch(
            self._redis,
            self._keys,
            lease_value=self._lease_value,
            group_incarnation=group.incarnation if group else "",
        )
        self._results_after = str(EntryId(self._epoch, 0))
        self._departed = 0
        failover = ""
        if reason == "start":
            failover = "scheduler" if self._epoch > 1 else ""
        elif group is not None and self._had_group:
            failover = "group"
        self._had_group = self._had_group or group is not None
        self._meters.opened(self._epoch, reason, failover=failover, last=last)
        self._spans.close(time.time_ns())
        self._group = group
        self._window = self._settings.window()
        self._published_ns = self._sampled_ns = 0
        self._integrity = IntegrityCheck()
        self._core = None if group is None else self._new_core(group)
        self._health.set(serving=group is not None)
        logger.info("epoch %d: %s", self._epoch, f"group {group.incarnation}" if group else "no group")

    def _new_core(self, group: log.GroupInfo) -> SchedulerCore:
        settings = self._settings
        shape = GroupShape(group.num_blocks, group.max_seqs, group.max_model_len)
        limits = Limits(
            max_num_batched_tokens=settings.max_num_batched_tokens,
            max_num_seqs=min(settings.max_num_seqs, shape.max_seqs),
            prefill_chunk=settings.prefill_chunk,
            max_in_flight=self._window.largest,
            prefix_cache=settings.prefix_cache,
            shared_prefix_cache=settings.shared_prefix_cache,
            priority_seconds=settings.priority_seconds,
        )
        core = SchedulerCore(shape, limits, epoch=self._epoch, salt=settings.cache_salt.encode())
        core.set_window(self._window.size)
        return core
