"""Keeps the group's announcement alive as long as its steps go on, and ends a rank whose step is stuck."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from albireo.store.logs import Lease

logger = logging.getLogger(__name__)


class StepWatch:
    """When the steps that run began. They begin in the compute stage and end in the output stage, in order:
    on a GPU a step that has been launched has not run. Read by the keeper."""

    def __init__(self) -> None:
        self._began: deque[float] = deque()  # as many as the bounded queues let through
        self.ended = 0  # steps, in all

    def begin(self) -> None:
        self._began.append(time.monotonic())

    def end(self) -> None:
        self._began.popleft()
        self.ended += 1

    def seconds(self) -> float:
        """Age of the oldest step that runs, 0 where none does."""
        try:
            return time.monotonic() - self._began[0]
        except IndexError:
            return 0.0


def keep(
    lease: Lease | None,
    watch: StepWatch,
    stop: threading.Event,
    *,
    step_timeout: float,
    every: float,
    on_beat: Callable[[], None],
) -> None:
    """Runs until stopped. ``lease`` is the group's announcement on rank 0, None on the others; ``on_beat``
    is called each time, after all that must be in time."""
    while not stop.wait(every):
        if watch.seconds() > step_timeout:
            logger.critical("a step has run for more than %.0f s: the group is stuck", step_timeout)
            faulthandler.dump_traceback(sys.stderr)
            logging.shutdown()
            os._exit(1)
        if lease is not None:
            lease.renew()
        on_beat()
