"""What a rank does at intervals, whatever its stages do: it keeps the registration and its heartbeat alive,
looks whether the scheduler has closed the group, and ends the rank where it must.

Runs in a thread of its own on every rank, also while the compute stage hangs.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from albireo.contract import codec
from albireo.runtime.clock import Clock
from albireo.store.interface import LAST_STEP, EntryId, Fenced, Log
from worker_svc.stages.ending import Ending, closed
from worker_svc.stages.heartbeat import Heartbeat
from worker_svc.stages.registration import Registration
from worker_svc.stages.step_watch import StepWatch

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 8.0
"""How long a rank that is asked to stop may take for its steps. A supervisor kills it after ten."""
END_SECONDS = 4.0
"""How long the main thread may take once the stages must end. It may hang in a collective."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """In seconds."""

    beat: float
    renewal: float
    step_timeout: float


class Renewal:
    """See ``run``."""

    def __init__(
        self,
        registration: Registration | None,
        heartbeat: Heartbeat,
        plans: Log,
        watch: StepWatch,
        ending: Ending,
        clock: Clock,
        intervals: Intervals,
        *,
        opened: Callable[[], bool],
        on_renewal: Callable[[], None],
        abort: Callable[[], NoReturn],
    ) -> None:
        """``registration``: on rank 0, None on the others. ``plans``: the group's. ``opened``: whether a
        scheduler has led the group. ``on_renewal`` is called after each renewal, when all that must be in
        time is done. ``abort`` ends the process."""
        self._registration = registration
        self._heartbeat = heartbeat
        self._plans = plans
        self._watch = watch
        self._ending = ending
        self._clock = clock
        self._intervals = intervals
        self._opened = opened
        self._on_renewal = on_renewal
        self._abort = abort
        self._renew_at = 0.0
        self._drain_until: float | None = None

    def run(self) -> None:
        """Runs until the rank is over. Raises Fenced when the group is closed, or its logs are gone; aborts
        when a step runs for longer than the step timeout, and when the main thread does not end."""
        intervals, ending = self._intervals, self._ending
        while not ending.over.wait(min(intervals.beat, intervals.renewal)):
            self._check_steps()
            self._heartbeat.beat()
            self._check_group()
            if self._clock.now() >= self._renew_at:
                self._renew_at = self._clock.now() + intervals.renewal
                self._renew()
            if ending.asked.is_set():
                self._drain()
        if not ending.done.wait(END_SECONDS):
            logger.critical("the rank is over, and its main thread does not end")
            self._abort()

    def _check_steps(self) -> None:
        timeout = self._intervals.step_timeout
        if self._watch.seconds() > timeout:
            logger.critical("a step has run for more than %.0f s: the group is stuck", timeout)
            faulthandler.dump_traceback(sys.stderr)
            self._abort()

    def _check_group(self) -> None:
        """The input stage sees this too, unless it waits for a compute stage that hangs."""
        opened = self._opened()  # before the log is read
        last = EntryId.parse(self._plans.last())
        if last.step == LAST_STEP:
            [(_, data)] = self._plans.read(f"{last.epoch}-{LAST_STEP - 1}", 0)[-1:] or [(b"", b"")]
            raise closed(codec.plan_from_bytes(data).close.reason if data else "")
        if opened and last == (0, 0):
            raise Fenced("the plans of this group are gone: it was closed, or the store has lost everything")

    def _renew(self) -> None:
        if self._registration is not None:
            self._registration.renew(opened=self._opened())
        self._on_renewal()

    def _drain(self) -> None:
        now = self._clock.now()
        if self._registration is None and not self._opened():
            self._ending.over.set()  # there are no steps, and no scheduler that will close the group
        elif self._drain_until is None:
            self._drain_until = now + DRAIN_SECONDS
        elif now >= self._drain_until:
            logger.warning("the rank ends: its steps have not ended within %.0f s", DRAIN_SECONDS)
            self._ending.over.set()
