"""The last phase of a call: sends its answers, and ends calls whose clients do not read them.

The interceptor uses it, on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any
from weakref import WeakKeyDictionary

import grpc

from gateway.calls.refusal import Context

_parents: WeakKeyDictionary[asyncio.Task[Any], asyncio.Task[Any] | None] = WeakKeyDictionary()
"""By task, the task that created it."""


def track_parents(loop: asyncio.AbstractEventLoop) -> None:
    """Makes the loop record which task creates which, for :class:`Writer`. Called once, at the start."""

    def make(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        _parents[task] = asyncio.current_task(loop)
        return task

    loop.set_task_factory(make)  # type: ignore[arg-type]


class Writer:
    """Sends messages, each in bounded time.

    A client that does not open its flow-control window blocks its call without limit; even the status waits
    behind the data. Such a call is reset (RST_STREAM), which the client sees as CANCELLED. grpc.aio has no
    function for that, but gRPC's core resets a call without references. Two tasks refer to a call: the one
    that serves it, and its parent, which waits for the client to end it. Both are cancelled.
    """

    def __init__(self, seconds: float, hits: Counter[str]) -> None:
        """``seconds``: longest wait of a message for flow control. ``hits`` counts the calls that it ends."""
        self._seconds = seconds
        self._hits = hits

    async def write(self, context: Context, message: bytes) -> None:
        """Called by the task that serves the call. Raises CancelledError if the call is over or is reset."""
        try:
            async with asyncio.timeout(self._seconds):
                await context.write(message)
        except grpc.aio.InternalError:  # the call is over
            raise asyncio.CancelledError from None
        except TimeoutError:
            self._hits["write_seconds"] += 1
            serving = asyncio.current_task()
            parent = _parents.get(serving) if serving is not None else None
            if parent is not None:
                parent.cancel()
            raise asyncio.CancelledError from None
