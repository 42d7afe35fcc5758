"""The thread of a stage: it ends the process when the stage fails, and does not when the rank stops."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import NoReturn

import pytest

from albireo.runtime.clock import SYSTEM_CLOCK
from albireo.virtual.clock import VirtualClock
from worker_svc.stages.ending import Ending
from worker_svc.stages.thread import start_stage

WAIT = 10.0  # far more than any of this takes


def test_a_stage_ends_with_its_body() -> None:
    done = threading.Event()
    ending = Ending.of(threading.Event(), SYSTEM_CLOCK)
    thread = start_stage("test", done.set, ending, SYSTEM_CLOCK)
    thread.join(WAIT)
    assert done.is_set()
    assert not thread.is_alive()


FAILING = """
import threading, time
from albireo.runtime.clock import SYSTEM_CLOCK
from albireo.store.interface import Fenced
from worker_svc.stages.ending import Ending
from worker_svc.stages.thread import start_stage

ending = Ending.of(threading.Event(), SYSTEM_CLOCK)

def fail():
    {before}
    raise {error}("the stage's own words")

start_stage("input", fail, ending, SYSTEM_CLOCK).join()
print("alive", ending.over.is_set(), flush=True)
"""


@pytest.mark.parametrize("error", ["ValueError", "SystemExit", "KeyboardInterrupt", "Fenced"])
@pytest.mark.parametrize(
    ("before", "code", "out"), [("pass", 1, ""), ("ending.asked.set()", 0, "alive True\n")]
)
def test_a_failing_stage_ends_the_process_unless_it_stops_anyway(
    before: str, code: int, out: str, error: str
) -> None:
    script = FAILING.format(before=before, error=error)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (code, out)
    assert ("the stage's own words" in found.stderr) is (code == 1)
    said = "the input stage ends: " if error == "Fenced" else "the input stage failed"
    assert (said in found.stderr) is (code == 1)
    assert ("Traceback" in found.stderr) is (code == 1 and error != "Fenced")


def test_a_stage_that_ends_with_its_virtual_clock_has_not_failed() -> None:
    aborted: list[str] = []

    def abort() -> NoReturn:
        aborted.append("the input stage")
        raise AssertionError

    with VirtualClock() as clock:
        stage = start_stage("input", lambda: clock.sleep(3600), Ending.of(clock.event(), clock), clock, abort)
        clock.sleep(1)
        assert stage.is_alive()
    assert not stage.is_alive()
    assert aborted == []
