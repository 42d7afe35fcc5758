"""The last phase of a call: what it sends, and the end of those whose clients take nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any
from weakref import WeakKeyDictionary

import grpc

from gateway.calls.refusal import Context

_parents: WeakKeyDictionary[asyncio.Task[Any], asyncio.Task[Any] | None] = WeakKeyDictionary()
"""By task, the one that created it."""


def track_parents(loop: asyncio.AbstractEventLoop) -> None:
    """Records from now on which task of the loop created which other: :class:`Writer` needs that."""

    def make(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        _parents[task] = asyncio.current_task(loop)
        return task

    loop.set_task_factory(make)  # type: ignore[arg-type]


class Writer:
    """Sends messages, each in bounded time.

    A client that does not open its flow-control window blocks its call for ever, behind the data even its
    status, so the call is cut: RST_STREAM, which the client sees as CANCELLED. grpc.aio has no function for
    that. But the core of gRPC cuts a call that nothing refers to any more, and what refers to a call are the
    task that serves it and its parent, which waits for the client's end of it.
    """

    def __init__(self, seconds: float, hits: Counter[str]) -> None:
        """``seconds``: most that a message may take to get past flow control."""
        self._seconds = seconds
        self._hits = hits

    async def write(self, context: Context, message: bytes) -> None:
        """From the task that serves the call. Ends it with CancelledError where the client takes nothing."""
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
