"""One group that the scheduler leads: the part of the core that plans for it, between its two logs.

The fleet makes it; the service's thread calls ``settle`` with what has been read, and has its plans
published.
"""

from __future__ import annotations

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import Plan
from albireo.runtime.clock import Clock
from albireo.store.interface import EntryId, Fenced, GroupOpening, LogEntry, NewEntry
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import GroupCore, ProtocolError, Window
from scheduler_svc.group_watch import Closing, GroupWatch
from scheduler_svc.telemetry.group_report import GroupReport
from scheduler_svc.telemetry.turn import TurnTelemetry


def seconds_of(timing: control.StepTiming) -> float | None:
    """How long a step ran on the device; None where its group does not say. Waits for fetches are left out:
    they are no measure of what the next steps take. Layers of streamed slots wait each time they run."""
    if not timing.forward_begin:
        return None
    waited = timing.kv_wait - timing.stream_wait
    return (timing.sampling_end - timing.forward_begin - waited) / 1e9


class LedGroup:
    """Plans of one group, from its opening until its closing has been read from its results."""

    def __init__(
        self,
        opening: GroupOpening,
        info: log.GroupInfo,
        core: GroupCore,
        window: Window,
        watch: GroupWatch,
        *,
        keys: Keys,
        clock: Clock,
        telemetry: TurnTelemetry,
    ) -> None:
        self.opening = opening
        self.info = info
        self.core = core
        self.watch = watch
        self.plans = keys.plans(opening.group)
        self.results = keys.results(opening.group)
        self.ranks = [keys.rank(opening.group, rank) for rank in range(info.tp)]
        self.after = str(EntryId(opening.epoch, 0))
        """Id of the last entry of the results that was read."""
        self.closing: Closing | None = None
        """Set once its logs are closed: it gets no more plans, and its results are read to their end."""
        self.closed = False
        """Whether all of its results have been read."""
        self._broken = False  # it has broken the protocol: what it reported afterwards does not count
        self._window = window
        self._clock = clock
        self._telemetry = telemetry
        self._planned: Plan | None = None  # made, and not published yet
        self._published_ns = 0  # when the store had acknowledged the last plan
        self._sampled_ns = 0  # when the sampling of the last settled step ended, on rank 0
        core.set_window(window.size)

    @property
    def name(self) -> str:
        """What people and metrics call it."""
        return self.opening.name

    def settle(self, entries: list[LogEntry]) -> None:
        """Takes in entries of its results.

        Raises ProtocolError for what no correct worker reports; then no further result of the group counts.
        Raises Fenced where the scheduler of a later epoch leads the group.
        """
        try:
            for raw_id, data in entries:
                self.after = raw_id.decode()
                self._take(EntryId.parse(raw_id), data)
        except ProtocolError:
            self._broken = True
            raise

    def plan(self, now: float, began_ns: int) -> NewEntry | None:
        """The next plan at ``now``, in the store's time, for its log; None if nothing is due. ``began_ns``:
        when the entries that led to it had been read, or what came before it in the same turn had been
        published, in nanoseconds of the Unix epoch."""
        self._planned = plan = self.core.plan(now)
        if plan is None:
            return None
        timing = control.StepTiming(
            plan_begin=began_ns,
            plan_end=self._clock.time_ns(),
            previous_published=self._published_ns,
            settled_step=self.core.settled_step,
            look_ahead=self._window.size - 1,
        )
        return NewEntry(self.plans, EntryId(plan.epoch, plan.step), codec.plan_to_bytes(plan, timing))

    def published(self, at_ns: int) -> None:
        """The last plan has been in the log since ``at_ns`` of the Unix epoch."""
        assert self._planned is not None
        self._published_ns = at_ns
        self._telemetry.published(self.name, self._planned, at_ns)

    def report(self) -> GroupReport:
        """Its present state, for load and metrics."""
        return GroupReport(
            name=self.name,
            incarnation=self.opening.group,
            device=self.info.device,
            tp=self.info.tp,
            stats=self.core.stats(),
            look_ahead=self._window.size - 1,
            beat_age=self.watch.beat_age,
            ranks=self.watch.report(),
        )

    def _take(self, entry_id: EntryId, data: bytes) -> None:
        if entry_id.epoch != self.opening.epoch:
            raise Fenced(f"{self.results} {entry_id}: the group is led by another scheduler")
        try:
            entry = codec.result_from_bytes(data)
        except ValueError as error:
            raise ProtocolError(f"result {entry_id}: {error}") from error
        kind = entry.WhichOneof("entry")
        if kind == "close":
            self.closed = True
        elif kind == "result" and not self._broken:
            self._settle_step(entry_id.step, entry.result)

    def _settle_step(self, step: int, message: log.StepResult) -> None:
        try:
            result = codec.result_from_proto(self.opening.epoch, step, message)
        except ValueError as error:
            raise ProtocolError(f"result {step}: {error}") from error
        self.core.settle(result, seconds_of(message.timing))
        self._telemetry.settled(self.name, result, message, self._observe_wait(message))

    def _observe_wait(self, message: log.StepResult) -> float | None:
        """Seconds that rank 0 waited for the plan of a step, by which the window is sized. None where no
        row decoded: then the rank waited for requests."""
        timing, waited = message.timing, None
        if message.decodes and self._sampled_ns:
            waited = (timing.fetched - self._sampled_ns) / 1e9
            self._window.observe(waited)
            self.core.set_window(self._window.size)
        self._sampled_ns = timing.sampling_end
        return waited
