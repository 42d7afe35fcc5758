"""The supervisor, with real processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from albireo.local.child import Command
from albireo.local.supervisor import MAX_RESTARTS, GaveUp, Supervisor, Unit
from tests.stack import wait_for

SLEEPER = (sys.executable, "-c", "import time; time.sleep(100)")
DEAF = (
    sys.executable,
    "-c",
    "from signal import *; import time; signal(SIGTERM, SIG_IGN); print('deaf', flush=True); time.sleep(9)",
)
BROKEN = (sys.executable, "-c", "import sys; sys.exit('no such checkpoint')")


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Unit]:
    unit = Unit("pair", [Command(name, SLEEPER, {}) for name in ("a", "b")], tmp_path)
    unit.start()
    yield unit
    unit.stop()


def test_a_unit_dies_and_comes_back_as_one(pair: Unit) -> None:
    stop = threading.Event()
    watcher = threading.Thread(target=Supervisor([pair]).watch, args=(stop,))
    watcher.start()
    before = pair.pids
    os.kill(before[1], signal.SIGKILL)
    wait_for(lambda: len(pair.pids) == 2 and not set(pair.pids) & set(before), 10, "not restarted")
    assert not alive(before[0])
    stop.set()
    watcher.join(timeout=5)
    assert not pair.failed()


def test_a_stopped_process_does_not_keep_its_unit_from_starting_again(pair: Unit) -> None:
    before = pair.pids
    os.kill(before[0], signal.SIGSTOP)
    os.kill(before[1], signal.SIGKILL)
    wait_for(pair.failed, 5, "it has not ended")
    began = time.monotonic()
    Supervisor([pair]).check()
    assert time.monotonic() - began < 1
    assert not any(map(alive, before))
    assert len(pair.pids) == 2


def test_units_come_and_go_while_the_others_are_watched(tmp_path: Path) -> None:
    first, second = (Unit(name, [Command(name, SLEEPER, {})], tmp_path) for name in ("a", "b"))
    supervisor, stop = Supervisor([first]), threading.Event()
    supervisor.start()
    watcher = threading.Thread(target=supervisor.watch, args=(stop,))
    watcher.start()
    supervisor.add(second)
    [before] = second.pids
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: len(second.pids) == 1 and second.pids != [before], 10, "not restarted")
    [pid] = second.pids
    supervisor.remove(second)
    assert not alive(pid)
    stop.set()
    watcher.join(timeout=5)
    assert second.children == []
    supervisor.stop()


def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    unit = Unit("deaf", [Command("deaf", DEAF, {})], tmp_path)
    unit.start()
    log = tmp_path / "deaf.log"
    wait_for(lambda: "deaf" in log.read_text(), 10, "did not start")
    pid = unit.pids[0]
    unit.stop(seconds=0.2)
    assert not alive(pid)


def test_a_unit_that_keeps_failing_is_given_up_with_its_log(tmp_path: Path) -> None:
    unit = Unit("worker", [Command("worker", BROKEN, {})], tmp_path)
    supervisor = Supervisor([unit])
    supervisor.start()
    with pytest.raises(GaveUp, match="no such checkpoint"):
        supervisor.watch(threading.Event())
    assert (tmp_path / "worker.log").read_text().count("no such checkpoint") == MAX_RESTARTS + 1


def test_before_it_serves_nothing_is_restarted(tmp_path: Path) -> None:
    unit = Unit("worker", [Command("worker", BROKEN, {})], tmp_path)
    unit.start()
    wait_for(unit.failed, 10, "did not fail")
    with pytest.raises(GaveUp, match="failed to start"):
        Supervisor([unit]).check(restart=False)


SAYS = "import sys; sys.exit('worker-{}: no such checkpoint')"
ABORTS = "import os; os.abort()"
SAYS_AND_ABORTS = "import os; os.write(2, b'worker-1: no such checkpoint\\n'); os.abort()"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (SAYS.format(0), ABORTS, "worker-0: no such checkpoint"),
        (ABORTS, SAYS_AND_ABORTS, "worker-1: no such checkpoint"),
        (SAYS.format(0), KILLED, "worker-1 was ended by SIGKILL"),
        (ABORTS, ABORTS, "worker-0 was ended by SIGABRT"),
    ],
)
def test_the_reason_is_that_of_the_rank_that_knows_it(
    first: str, second: str, reason: str, tmp_path: Path
) -> None:
    """A library aborts a process whose peer has ended; what the peer said is the reason."""
    commands = [
        Command(f"worker-{rank}", (sys.executable, "-c", code), {})
        for rank, code in enumerate((first, second))
    ]
    unit = Unit("worker", commands, tmp_path)
    unit.start()
    wait_for(lambda: all(child.process.poll() is not None for child in unit.children), 10, "still there")
    with pytest.raises(GaveUp, match=f"failed to start: {reason}"):
        Supervisor([unit]).check(restart=False)
