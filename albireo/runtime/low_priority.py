"""Runs the clients of a measurement in a thread of low priority: they share the cores with the tiers."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

NICENESS = 10

Result = TypeVar("Result")


def run_at_low_priority(load: Coroutine[Any, Any, Result]) -> Result:
    """``asyncio.run`` in a thread of its own."""
    with ThreadPoolExecutor(1, initializer=_lower) as clients:
        return clients.submit(asyncio.run, load).result()


def _lower() -> None:
    if sys.platform == "linux":  # where a priority is a thread's, not the process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
