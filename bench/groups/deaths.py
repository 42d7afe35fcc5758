"""Kills a rank of one group now and then, each time of the next group."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from itertools import count

from albireo.local.stack import Stack


@dataclass(frozen=True, slots=True)
class Death:
    """One rank was killed."""

    at: float  # seconds of time.monotonic
    name: str  # of the group
    incarnation: str


async def kill_in_turn(stack: Stack, every: float, until: float, deaths: list[Death]) -> None:
    """Sends SIGKILL to one rank every ``every`` seconds before ``until``, and notes it in ``deaths``. A group
    that is not there again in time is left alone."""
    for turn in count():
        await asyncio.sleep(every)
        if time.monotonic() >= until:
            return
        names = stack.group_names
        name = names[turn % len(names)]
        groups = {info.name: info.incarnation for info in stack.groups()}
        if name not in groups:
            continue
        pids = stack.units[name].pids
        deaths.append(Death(time.monotonic(), name, groups[name]))
        os.kill(pids[turn % len(pids)], signal.SIGKILL)
