"""Keeps the group's announcement alive as long as its steps go on, and ends a rank whose step is stuck."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time

from albireo.logs import Lease

logger = logging.getLogger(__name__)


class StepWatch:
    """When the running step began. Written by the compute stage, read by the keeper."""

    def __init__(self) -> None:
        self._began: float | None = None

    def begin(self) -> None:
        self._began = time.monotonic()

    def end(self) -> None:
        self._began = None

    def seconds(self) -> float:
        """Age of the running step, 0 where none runs."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began


def keep(
    lease: Lease | None, watch: StepWatch, stop: threading.Event, *, step_timeout: float, every: float
) -> None:
    """Runs until stopped. ``lease`` is the group's announcement on rank 0, None on the others."""
    while not stop.wait(every):
        if watch.seconds() > step_timeout:
            logger.critical("a step has run for more than %.0f s: the group is stuck", step_timeout)
            faulthandler.dump_traceback(sys.stderr)
            logging.shutdown()
            os._exit(1)
        if lease is not None:
            lease.renew()
