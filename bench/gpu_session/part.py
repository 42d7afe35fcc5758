"""One part of a session: a command with a time limit. What becomes of it is data, whatever happens.

A process of its own, since an error on a device can spoil all that a process does there afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "failed", "timed out", "skipped"]

RESULT = "RESULT"
"""In a command: the file that it writes its figures to."""
END_SECONDS = 15.0
"""For a part past its limit to stop the processes that it has started."""
LAST_LINES, LINE_LENGTH = 30, 300
"""What is kept of the output of a part that did not succeed."""


def figures_of(result: Path, output: str) -> dict[str, Any]:
    """The JSON object that a command has written."""
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True, slots=True)
class Part:
    """A Python command: what follows the interpreter."""

    name: str
    arguments: tuple[str, ...]
    seconds: float  # at most
    figures: Callable[[Path, str], dict[str, Any]] = figures_of  # of its result file and its output
    skipped: str = ""  # why it does not run here
    environment: Mapping[str, str] = field(default_factory=dict)  # in addition


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a part."""

    name: str
    command: str
    status: Status
    seconds: float
    limit: float
    figures: dict[str, Any]  # also of a part that failed, as far as it came
    why: str = ""  # it was skipped; or the end of its output, where it failed


def run_part(part: Part, scratch: Path) -> Outcome:
    """``scratch``: directory for its files."""
    command = " ".join([*(f"{k}={v}" for k, v in part.environment.items()), "python", *part.arguments])
    command = command.replace(str(scratch), "SCRATCH").replace(f"{Path.cwd()}/", "")
    if part.skipped:
        return Outcome(part.name, command, "skipped", 0.0, part.seconds, {}, part.skipped)
    result, log = scratch / f"{part.name}.json", scratch / f"{part.name}.log"
    arguments = [str(result) if argument == RESULT else argument for argument in part.arguments]
    began = time.perf_counter()
    with log.open("wb") as output:
        code = _run([sys.executable, *arguments], part, output.fileno())
    seconds = time.perf_counter() - began
    text = log.read_text(encoding="utf-8", errors="replace")
    status: Status = "timed out" if code is None else "failed" if code else "ok"
    try:
        figures = part.figures(result, text)
    except (OSError, ValueError) as error:  # nothing was written, or not all of it
        figures = {}
        if status == "ok":
            status, text = "failed", f"{text}\nno result: {error}"
    return Outcome(
        part.name, command, status, seconds, part.seconds, figures, "" if status == "ok" else _end_of(text)
    )


def _run(command: list[str], part: Part, output: int) -> int | None:
    """The exit status; None for a command that did not end in time."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PATH": programs, **part.environment}
    process = subprocess.Popen(
        command,
        stdout=output,
        stderr=output,
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        return process.wait(timeout=part.seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # it stops what it has started
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=END_SECONDS)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_of(text: str) -> str:
    lines = [line[:LINE_LENGTH] for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-LAST_LINES:])
