"""Kills every container in turn, and a rank, and measures how long until the stack serves again.

``__main__`` calls it. Docker does not restart a container that `docker kill` ended, so its first process is
killed instead, as in a crash.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass

from rich.table import Table

from deploy.smoke.containers import Failed, container_of, first_process, last_rank, state_of, wait_back
from deploy.smoke.requests import Probe, Stories

RANK = "worker, one rank"
STOPPED = "worker, one rank stopped (SIGSTOP)"
LOSSLESS = ("worker", RANK, STOPPED)
"""Victims whose end no stream may show but by a pause."""
VICTIMS = ("gateway-1", "gateway-2", "scheduler", *LOSSLESS, "redis", "proxy")
STORIES = 2
"""Long streams that run when a container is killed: one on each gateway."""
IN_A_ROW = 20
"""Successful answers in a row, to questions sent after the container was healthy, that end a measurement."""
BACK_SECONDS = 120.0


@dataclass(slots=True)
class Kill:
    """The effects of one kill; times in seconds after it."""

    victim: str
    served_again: float
    healthy_again: float
    failed: Counter[str]
    problems: list[str]
    streams: list[str]


def kill(target: str, victim: str) -> Kill:
    """Kills one container, or one rank, under long streams and short requests."""
    container = container_of(victim.split(",")[0])
    before = state_of(container)
    process = last_rank(container) if victim in (RANK, STOPPED) else first_process(container)
    probe = Probe(target)
    thread = threading.Thread(target=probe.run, daemon=True)
    thread.start()
    stories = Stories.start(target, STORIES)
    time.sleep(2)
    if any(outcome.error for outcome in probe.outcomes):
        raise Failed(f"before {victim} was killed: {probe.outcomes}")
    killed = time.monotonic()
    os.kill(process, signal.SIGSTOP if victim == STOPPED else signal.SIGKILL)
    wait_back(container, before, deadline=killed + BACK_SECONDS)
    healthy = time.monotonic()
    while probe.good_since(healthy) < IN_A_ROW:
        if time.monotonic() > killed + BACK_SECONDS:
            raise Failed(f"{victim}: no {IN_A_ROW} answers in a row: {probe.outcomes[-1]}")
        time.sleep(0.05)
    probe.stop.set()
    thread.join(timeout=BACK_SECONDS)
    return effects(victim, probe, stories, killed=killed, healthy=healthy)


def effects(victim: str, probe: Probe, stories: Stories, *, killed: float, healthy: float) -> Kill:
    """``killed``, ``healthy``: monotonic seconds."""
    bad = [outcome for outcome in probe.outcomes if outcome.error]
    last_bad = max((outcome.ended for outcome in bad), default=killed)
    served = min(o.ended for o in probe.outcomes if not o.error and o.sent > max(last_bad, killed))
    streams = stories.join()
    problems = [outcome.error for outcome in [*bad, *streams] if not outcome.clear]
    return Kill(
        victim,
        served - killed,
        healthy - killed,
        Counter(outcome.error for outcome in bad),
        problems + (stories.cut() if victim in LOSSLESS else []),
        [story.summary for story in streams],
    )


def table(kills: list[Kill]) -> Table:
    columns = (
        "killed",
        "served again, s",
        "healthy again, s",
        "short requests that failed",
        "streams that ran",
    )
    made = Table(*columns)
    for one in kills:
        failed = "\n".join(f"{count} x {error}" for error, count in one.failed.items()) or "none"
        streams = "\n".join(one.streams)
        made.add_row(one.victim, f"{one.served_again:.1f}", f"{one.healthy_again:.1f}", failed, streams)
    return made
