"""Runs work of more than a millisecond off the event loop: decoding, validation, tokenization.

The interceptor and the ``Inference`` service call it, on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from gateway.calls.limits import QueuedLimit
from gateway.calls.refusal import exhausted

Result = TypeVar("Result")

SMALL_BYTES = 2_048
"""Work on smaller requests takes less time than the switch to a thread, and runs on the event loop."""
MEDIUM_BYTES = 65_536
MEDIUM_WAITING, LARGE_WAITING = 4 << 20, 16 << 20
"""Most bytes of requests that wait for each thread."""
WAIT_SECONDS = 10.0
"""Longest wait of one request."""


class WorkThreads:
    """One thread for medium and one for large requests, so that a long text only delays other long texts."""

    def __init__(self, hits: Counter[str]) -> None:
        self._medium = _WorkThread("medium", MEDIUM_WAITING, hits)
        self._large = _WorkThread("large", LARGE_WAITING, hits)

    async def run(self, size: int, work: Callable[[], Result]) -> Result:
        """Returns what ``work`` returns. ``size``: bytes of the request that it is about.

        Raises Refusal if too many bytes wait already, and what ``work`` raises. If the caller is cancelled
        while it waits, ``work`` does not run; once begun it runs to its end.
        """
        if size < SMALL_BYTES:
            return work()
        return await (self._medium if size < MEDIUM_BYTES else self._large).run(size, work)

    def close(self) -> None:
        """Drops waiting work, and does not wait for work that runs."""
        for thread in (self._medium, self._large):
            thread.close()


class _WorkThread:
    """A thread and the requests that wait for it. Each is handed over when the thread is free: the executor's
    own queue would keep the requests of cancelled callers."""

    def __init__(self, name: str, most_waiting: int, hits: Counter[str]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._limit = QueuedLimit(1, WAIT_SECONDS, "work_seconds", "long requests wait to be tokenized", hits)
        self._most_waiting = most_waiting
        self._waiting = 0  # bytes
        self._hits = hits

    async def run(self, size: int, work: Callable[[], Result]) -> Result:
        if self._waiting and self._waiting + size > self._most_waiting:
            self._hits["work"] += 1
            raise exhausted(f"requests of {self._waiting} bytes wait to be tokenized")
        self._waiting += size
        try:
            await self._limit.acquire()
        finally:
            self._waiting -= size
        loop = asyncio.get_running_loop()
        running = self._thread.submit(work)
        running.add_done_callback(lambda _: self._release(loop))  # also if the caller was cancelled
        return await asyncio.wrap_future(running)

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._limit.release)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
