"""Runs the tiers as processes of one machine: starts, watches, restarts and stops them.

A unit is what lives and dies together: one service, or all ranks of a worker group.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from albireo.parent import PARENT_VARIABLE

logger = logging.getLogger(__name__)

MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0
POLL_SECONDS = 0.1


class GaveUp(RuntimeError):
    """A unit that keeps failing."""


@dataclass(frozen=True, slots=True)
class Command:
    """One process: its arguments and what its environment has beyond ours."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    niceness: int = 0  # added to ours: what gives way to the others where cores are short


class Unit:
    """Processes that are started, stopped and restarted as one."""

    def __init__(self, name: str, commands: Sequence[Command], log_directory: Path) -> None:
        self.name = name
        self._commands = commands
        self._logs = log_directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._starts: deque[float] = deque(maxlen=MAX_RESTARTS + 1)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def start(self) -> None:
        self._starts.append(time.monotonic())
        for command in self._commands:
            with (self._logs / f"{command.name}.log").open("ab") as log:
                process = subprocess.Popen(
                    list(command.arguments),
                    env={**os.environ, **command.environment, PARENT_VARIABLE: str(os.getpid())},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # An interrupt at the terminal is ours to handle, in order.
                    start_new_session=True,
                )
                # From outside: code of ours between fork and exec would meet gRPC's threads, and may abort.
                os.setpriority(
                    os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + command.niceness
                )
                self._processes.append(process)

    def failed(self) -> bool:
        """True when any of its processes has ended."""
        return any(process.poll() is not None for process in self._processes)

    def stop(self, *, seconds: float = 10.0) -> None:
        """SIGTERM to all, SIGKILL to those that are still there after ``seconds``."""
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + seconds
        for process in self._processes:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("%s did not stop in %.0f s and was killed", self.name, seconds)
                process.kill()
                process.wait(timeout=5)
        self._processes.clear()

    def restart(self) -> None:
        """Raises GaveUp when it has been restarted too often of late."""
        codes = [process.poll() for process in self._processes]
        # The others may be stuck in a collective with the one that died.
        self.stop(seconds=1.0)
        full = len(self._starts) == self._starts.maxlen
        if full and time.monotonic() - self._starts[0] < RESTART_WINDOW_SECONDS:
            raise GaveUp(f"{self.name} keeps failing:\n{self.log_tail()}")
        logger.warning("%s ended (exit status %s) and is started again", self.name, codes)
        self.start()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that each of its processes logged."""
        parts = []
        for command in self._commands:
            path = self._logs / f"{command.name}.log"
            tail = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
            parts.append("\n".join([f"--- {path}", *tail]))
        return "\n".join(parts)


class Supervisor:
    """Starts units in order, keeps them running, stops them in reverse order."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units

    def start(self) -> None:
        for unit in self._units:
            unit.start()

    def check(self, *, restart: bool = True) -> None:
        """Looks at every unit once. Raises GaveUp for one that failed and may not start again."""
        for unit in self._units:
            if unit.failed():
                if not restart:
                    raise GaveUp(f"{unit.name} failed to start:\n{unit.log_tail()}")
                unit.restart()

    def watch(self, stop: threading.Event, also: Callable[[], None] = lambda: None) -> None:
        """Keeps the units running until ``stop`` is set; looks at what ``also`` looks at each time before."""
        while not stop.wait(POLL_SECONDS):
            also()
            self.check()

    def stop(self) -> None:
        for unit in reversed(self._units):
            unit.stop()
