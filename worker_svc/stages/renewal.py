"""Renews the group's lease as long as its steps go on, and ends a rank whose step is stuck.

Runs in a thread of its own on every rank.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from albireo.runtime.clock import Clock, Event
from albireo.store.interface import Lease

logger = logging.getLogger(__name__)


class StepWatch:
    """When the steps that run began. They begin in the compute stage and end in the output stage, in order:
    on a GPU a step that has been launched has not run. Read by the renewal thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began: deque[float] = deque()  # as many as the bounded queues let through
        self.ended = 0  # steps, in all

    def begin(self) -> None:
        self._began.append(self._clock.now())

    def end(self) -> None:
        self._began.popleft()
        self.ended += 1

    def seconds(self) -> float:
        """Age of the oldest step that runs, 0 where none does."""
        try:
            return self._clock.now() - self._began[0]
        except IndexError:
            return 0.0


def renew_lease(
    lease: Lease | None,
    watch: StepWatch,
    stop: Event,
    *,
    step_timeout: float,
    every: float,
    on_renewal: Callable[[], None],
    abort: Callable[[], NoReturn],
) -> None:
    """Runs until stopped, once in ``every`` seconds. ``lease``: the group's announcement on rank 0, None on
    the others. ``on_renewal`` is called each time, after all that must be in time. ``abort`` ends the process
    when a step has run for longer than ``step_timeout`` seconds."""
    while not stop.wait(every):
        if watch.seconds() > step_timeout:
            logger.critical("a step has run for more than %.0f s: the group is stuck", step_timeout)
            faulthandler.dump_traceback(sys.stderr)
            abort()
        if lease is not None:
            lease.renew()
        on_renewal()
