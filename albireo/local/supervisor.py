"""Runs the tiers as processes of one machine: starts, watches, restarts and stops them.

A unit starts and ends as a whole: one service, or all ranks of a worker group. The thread of ``albireo up``
watches; another may add and remove units meanwhile.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from albireo.local.child import Child, Command, reason_of

logger = logging.getLogger(__name__)

MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0
POLL_SECONDS = 0.1


class GaveUp(RuntimeError):
    """A unit keeps failing, or does not start; the message says why, in a line."""


class Unit:
    """Processes that are started, stopped and restarted as one."""

    def __init__(self, name: str, commands: Sequence[Command], log_directory: Path) -> None:
        self.name = name
        self._commands = commands
        self._logs = log_directory
        self.children: list[Child] = []
        self._starts: deque[float] = deque(maxlen=MAX_RESTARTS + 1)

    @property
    def started(self) -> float:
        """Monotonic seconds of the last start."""
        return self._starts[-1]

    @property
    def pids(self) -> list[int]:
        return [child.process.pid for child in self.children]

    def start(self) -> None:
        self._starts.append(time.monotonic())
        for command in self._commands:
            self.children.append(Child(command, self._logs))

    def failed(self) -> bool:
        """Whether any of its processes has ended."""
        return any(child.process.poll() is not None for child in self.children)

    def stop(self, *, seconds: float = 10.0) -> None:
        """SIGTERM to all, SIGKILL to those that are still there after ``seconds``."""
        processes = [child.process for child in self.children]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + seconds
        for process in processes:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("%s did not stop in %.0f s and was killed", self.name, seconds)
                process.kill()
                process.wait(timeout=5)
        self.children.clear()

    def end(self) -> None:
        """SIGKILL to all, which ends stopped processes too."""
        for child in self.children:
            child.process.kill()

    def kill(self) -> None:
        """SIGKILL to all; returns when they have ended."""
        self.end()
        for child in self.children:
            child.process.wait(timeout=5)
        self.children.clear()

    def restart(self) -> None:
        """Ends the whole unit and starts it again.

        Raises GaveUp after more than MAX_RESTARTS within RESTART_WINDOW_SECONDS.
        """
        reason = reason_of(self.children)
        # The other ranks may be stopped, or stuck in a collective with the one that ended. One that is asked
        # to stop could have the group leave as if it had finished its work.
        self.kill()
        full = len(self._starts) == self._starts.maxlen
        if full and time.monotonic() - self._starts[0] < RESTART_WINDOW_SECONDS:
            raise GaveUp(f"{self.name} keeps failing: {reason}")
        logger.warning("%s is started again: %s", self.name, reason)
        self.start()


class Supervisor:
    """Starts units in order, keeps them running, stops them in reverse order."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = list(units)
        self._lock = threading.Lock()

    def start(self) -> None:
        for unit in self._units:
            unit.start()

    def add(self, unit: Unit) -> None:
        """Starts a unit, and watches it from now on."""
        with self._lock:
            unit.start()
            self._units.append(unit)

    def remove(self, unit: Unit) -> None:
        """Stops a unit, and watches it no more."""
        with self._lock:
            self._units.remove(unit)
        unit.stop()

    def check(self, *, restart: bool = True) -> None:
        """Restarts units that failed. Raises GaveUp for one that may not start again."""
        with self._lock:
            for unit in self._units:
                if unit.failed():
                    if not restart:
                        raise GaveUp(f"{unit.name} failed to start: {reason_of(unit.children)}")
                    unit.restart()

    def watch(self, stop: threading.Event, before_check: Callable[[], None] = lambda: None) -> None:
        """Keeps the units running until ``stop`` is set. Each poll calls ``before_check`` first."""
        while not stop.wait(POLL_SECONDS):
            before_check()
            self.check()

    def stop(self) -> None:
        for unit in reversed(self._units):
            unit.stop()
