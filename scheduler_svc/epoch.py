"""One epoch: the core of one worker group between the inbox, the plan log and the results log.

The service's thread calls it: ``receive`` and ``settle`` with what has been read, then ``publish``.
"""

from __future__ import annotations

import logging

from albireo.contract import codec
from albireo.contract.plan import GroupShape, Submission, public_name
from albireo.runtime.clock import Clock
from albireo.store.interface import EntryId, Log, Store
from albireo.telemetry.logs import about
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import Limits, SchedulerCore
from scheduler_svc.inbox_check import BadEntry, inbox_entry
from scheduler_svc.settings import SchedulerSettings
from scheduler_svc.telemetry.turn import TurnTelemetry

logger = logging.getLogger(__name__)


class Epoch:
    """Plans of one worker group, from the opening of its epoch until the next one is opened."""

    def __init__(
        self,
        number: int,
        group: log.GroupInfo,
        settings: SchedulerSettings,
        store: Store,
        plans: Log,
        clock: Clock,
        telemetry: TurnTelemetry,
    ) -> None:
        """Raises ValueError where the limits of ``settings`` do not fit the group."""
        self.number = number
        self.group = group
        self.window = settings.window()
        self.core = _core(number, group, settings, self.window.largest)
        self.core.set_window(self.window.size)
        self._store = store
        self._plans = plans
        self._clock = clock
        self._telemetry = telemetry
        self._departed = 0  # requests that have left the queue
        self._published_ns = 0  # when the store had acknowledged the last plan
        self._sampled_ns = 0  # when the sampling of the last settled step ended, on rank 0

    def receive(self, data: bytes, arrived: float) -> None:
        """Takes in an entry of the inbox that was appended at ``arrived``, in the store's time."""
        try:
            entry = inbox_entry(data, self.group.vocab_size)
        except BadEntry as error:
            self._refuse(error.submission, error)
            return
        if isinstance(entry, str):
            self.core.cancel(entry)
            return
        try:
            self.core.submit(entry, arrived)
        except ValueError as error:  # the gateway knew only an earlier group, one that holds more
            self._refuse(entry, error)
        else:
            self._telemetry.submitted(entry)

    def settle(self, step: int, message: log.StepResult) -> None:
        """Takes in the result of a step. Raises ProtocolError for what no correct worker reports."""
        result = codec.result_from_proto(self.number, step, message)
        self.core.settle(result)
        self._telemetry.settled(result, message, self._observe_wait(message))

    def publish(self, now: float, began_ns: int) -> None:
        """Appends every plan that is due at ``now``, in the store's time. ``began_ns``: when the entries
        that led to them had been read, in nanoseconds of the Unix epoch. Raises Fenced."""
        core = self.core
        while (plan := core.plan(now)) is not None:
            timing = control.StepTiming(
                plan_begin=began_ns,
                plan_end=self._clock.time_ns(),
                previous_published=self._published_ns,
                settled_step=core.settled_step,
                look_ahead=self.look_ahead,
            )
            self._plans.append(EntryId(plan.epoch, plan.step), codec.plan_to_bytes(plan, timing))
            began_ns = self._published_ns = self._clock.time_ns()
            self._telemetry.published(plan, self._published_ns)
        departures = core.take_departures()
        if departures:
            self._departed += departures
            self._store.count_departures(epoch=self.number, total=self._departed)

    @property
    def look_ahead(self) -> int:
        """Plans that are published ahead of the one that runs."""
        return self.window.size - 1

    def _refuse(self, submission: Submission | None, error: ValueError) -> None:
        """``submission``: the one that ends for its gateway; None where no gateway can wait for it."""
        if submission is None:
            logger.warning("an entry of the inbox is ignored: %s", error)
            return
        request_id = public_name(submission.request_id)
        logger.warning("request %s: %s", request_id, error, extra=about(request_id))
        self.core.refuse(submission)

    def _observe_wait(self, message: log.StepResult) -> float | None:
        """Seconds that rank 0 waited for the plan of a step, by which the window is sized. None where no
        row decoded: then the rank waited for requests."""
        timing, waited = message.timing, None
        if message.decodes and self._sampled_ns:
            waited = (timing.fetched - self._sampled_ns) / 1e9
            self.window.observe(waited)
            self.core.set_window(self.window.size)
        self._sampled_ns = timing.sampling_end
        return waited


def _core(number: int, group: log.GroupInfo, settings: SchedulerSettings, in_flight: int) -> SchedulerCore:
    shape = GroupShape(group.num_blocks, group.max_seqs, group.max_model_len)
    limits = Limits(
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_seqs=min(settings.max_num_seqs, shape.max_seqs),
        prefill_chunk=settings.prefill_chunk,
        max_in_flight=in_flight,
        prefix_cache=settings.prefix_cache,
        shared_prefix_cache=settings.shared_prefix_cache,
        priority_seconds=settings.priority_seconds,
    )
    return SchedulerCore(shape, limits, epoch=number, salt=settings.cache_salt.encode())
