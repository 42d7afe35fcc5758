"""Work that takes more than a millisecond, away from the event loop: decoding, validation, tokenization."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from gateway.calls.limits import Turns
from gateway.calls.refusal import exhausted

Result = TypeVar("Result")

SMALL_BYTES = 2_048
"""Work on less is done sooner than a thread could be asked to."""
MEDIUM_BYTES = 65_536
MEDIUM_WAITING, LARGE_WAITING = 4 << 20, 16 << 20
"""Bytes of requests that wait for each thread at most."""
WAIT_SECONDS = 10.0
"""Most that one of them waits."""


class WorkThreads:
    """Two threads, so that one long text holds up long ones only."""

    def __init__(self, hits: Counter[str]) -> None:
        self._medium = _WorkThread("medium", MEDIUM_WAITING, hits)
        self._large = _WorkThread("large", LARGE_WAITING, hits)

    async def run(self, size: int, work: Callable[[], Result]) -> Result:
        """What ``work`` returns or raises. ``size``: bytes of the request that it is about.

        Raises Refusal where too much waits already. A caller that is cancelled while it waits costs
        nothing; work that has begun goes on to its end.
        """
        if size < SMALL_BYTES:
            return work()
        return await (self._medium if size < MEDIUM_BYTES else self._large).run(size, work)

    def close(self) -> None:
        """Waits for nothing."""
        for thread in (self._medium, self._large):
            thread.close()


class _WorkThread:
    """One thread and what waits for it, which is only handed over once the thread is free: a queue of
    the executor's would keep the requests of callers that are gone."""

    def __init__(self, name: str, most_waiting: int, hits: Counter[str]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._turns = Turns(1, WAIT_SECONDS, "work_seconds", "long requests wait to be tokenized", hits)
        self._most_waiting = most_waiting
        self._waiting = 0  # bytes
        self._hits = hits

    async def run(self, size: int, work: Callable[[], Result]) -> Result:
        if self._waiting and self._waiting + size > self._most_waiting:
            self._hits["work"] += 1
            raise exhausted(f"requests of {self._waiting} bytes wait to be tokenized")
        self._waiting += size
        try:
            await self._turns.take()
        finally:
            self._waiting -= size
        loop = asyncio.get_running_loop()
        running = self._thread.submit(work)
        running.add_done_callback(lambda _: self._release(loop))  # also where its caller is gone
        return await asyncio.wrap_future(running)

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._turns.release)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
