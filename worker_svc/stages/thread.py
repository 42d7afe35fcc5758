"""The thread of a stage, and how a rank ends when one of its stages fails.

The service starts the stages, and the renewal of the lease, with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import NoReturn

from redis.exceptions import RedisError

from albireo.runtime.clock import Clock, Thread
from albireo.store.interface import Fenced
from albireo.store.redis_errors import describe
from worker_svc.stages.ending import Ending

logger = logging.getLogger(__name__)


def exit_process() -> NoReturn:
    """Ends the process at once, with status 1: other threads may be in a collective that never returns. The
    group's launcher restarts all ranks."""
    logging.shutdown()
    os._exit(1)


def start_stage(
    name: str,
    body: Callable[[], None],
    ending: Ending,
    clock: Clock,
    abort: Callable[[], NoReturn] = exit_process,
) -> Thread:
    """Runs a stage in a thread of its own. Calls ``abort`` if it raises while the rank is not to stop; if it
    is, that is the end of its stages."""

    def guarded() -> None:
        try:
            body()
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            # A thread ends silently with the latter two, and the group's lease would be renewed all the same.
            # Not BaseException: in virtual time, GreenletExit ends the stages of a clock that is closed.
            if ending.asked.is_set() or ending.over.is_set():
                ending.over.set()
                return
            if isinstance(error, RedisError):
                logger.critical("the %s stage failed: %s", name, describe(error))
            elif isinstance(error, Fenced):
                logger.critical("the %s stage ends: %s", name, error)
            else:
                logger.critical("the %s stage failed", name, exc_info=True)
            abort()

    return clock.start(name, guarded)
