"""One process that the supervisor started: its log of this start, and why it ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from albireo.local.parent import PARENT_VARIABLE

TAIL_BYTES = 16_384
"""Bytes at the end of a log that are searched for the reason why a process ended."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Command:
    """One process: its arguments, and the variables that are added to the supervisor's environment."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    niceness: int = 0  # added to the supervisor's; a process with a higher one gets less CPU time


class Child:
    """The running process of a command. It appends to the log file of earlier starts."""

    def __init__(self, command: Command, log_directory: Path) -> None:
        """Starts it."""
        self.name = command.name
        self.log = log_directory / f"{command.name}.log"
        with self.log.open("ab") as log:
            self._begin = log.tell()
            self.process = subprocess.Popen(
                list(command.arguments),
                env={**os.environ, **command.environment, PARENT_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # An interrupt at the terminal goes to the supervisor, which stops the services in order.
                start_new_session=True,
            )
        # From outside: code that runs between fork and exec next to gRPC's threads may abort.
        os.setpriority(
            os.PRIO_PROCESS, self.process.pid, os.getpriority(os.PRIO_PROCESS, 0) + command.niceness
        )

    @property
    def memory(self) -> int:
        """Resident bytes; 0 where that is not known (not Linux, or the process has ended)."""
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def lines(self) -> list[str]:
        """The last lines that it logged since this start."""
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._begin, end - TAIL_BYTES))
            return [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]

    def killed_by(self) -> str:
        """Name of the signal that ended it, unless the supervisor sent that; else empty."""
        code = self.process.poll()
        return "" if code is None or code >= 0 or -code in STOP_SIGNALS else signal.Signals(-code).name

    def stated_reason(self) -> str:
        """The reason that it logged for its end: its last line that begins with its name; else empty."""
        service = self.name.partition("-")[0]
        for line in reversed(self.lines()):
            for prefix in (f"{self.name}: ", f"{service}: ", "Error: "):
                if line.startswith(prefix):
                    return line.removeprefix(prefix)
        return ""


def reason_of(children: Sequence[Child]) -> str:
    """Why a unit's processes ended, in a line. The most specific reason counts, in this order:

    a process that was killed and logged nothing, since its peers only log that it is gone; a reason that a
    process logged; a process that aborted, which libraries do where a peer has ended first; the last line of
    a log, which is that of a traceback.
    """
    ended = [child for child in children if child.process.poll() is not None]
    killed = [child for child in ended if child.killed_by()]
    for child in killed:
        if child.killed_by() != "SIGABRT" and not child.stated_reason():
            return _killed(child)
    for child in children:  # also one that has logged it and is about to end
        reason = child.stated_reason()
        if reason:
            return f"{child.name}: {reason}{_log(child)}"
    if killed:
        return _killed(killed[0])
    child = ended[0]
    last = child.lines()[-1:] or [f"it ended with exit status {child.process.returncode}"]
    return f"{child.name}: {last[0].strip()}{_log(child)}"


def _killed(child: Child) -> str:
    name = child.killed_by()
    advice = ": the machine may be out of memory (see `dmesg`)" if name == "SIGKILL" else ""
    return f"{child.name} was ended by {name}{advice}{_log(child)}"


def _log(child: Child) -> str:
    return f" (log: {child.log})"
