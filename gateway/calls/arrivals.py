"""The first phase of a call: its headers are here, its request is not yet."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc

from gateway.calls.refusal import Context, Refusal, exhausted

STREAM_SECONDS = 300.0
"""Most that a call may go on sending requests."""


class Arrivals:
    """Reads what clients send. How many calls wait for it, and how long, is bounded.

    Where all places are taken, a new call ends the one that has waited longest: ordinary clients send
    headers and request together, so it is hardly ever one of theirs.
    """

    def __init__(self, most: int, seconds: float, hits: Counter[str]) -> None:
        """``seconds``: from a call's headers to the end of its request."""
        self._most = most
        self._seconds = seconds
        self._hits = hits
        self._waiting: dict[asyncio.Timeout, bool] = {}  # the oldest first; True for all that are there

    async def request(self, context: Context) -> bytes:
        """The one message of a call that has one, as it came.

        Raises Refusal: UNIMPLEMENTED where the client sent none or several (gRPC's "request cardinality
        violation"), DEADLINE_EXCEEDED where it took too long, RESOURCE_EXHAUSTED where it had to make room.
        """
        self._make_room()
        made_room = False
        try:
            async with asyncio.timeout(self._seconds) as limit:
                self._waiting[limit] = True
                try:
                    return await _only_message(context)
                finally:
                    made_room = not self._waiting.pop(limit, False)
        except TimeoutError:
            bound = "max_arriving" if made_room else "message_seconds"
            self._hits[bound] += 1
            if made_room:
                raise exhausted(f"{self._most} newer calls wait for their requests too ({bound})") from None
            raise Refusal(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"the request was not complete within {self._seconds:g} s ({bound})",
            ) from None

    async def requests(self, context: Context) -> AsyncIterator[bytes]:
        """All messages of a call that may have several; one that is late is the end of them, and so is
        STREAM_SECONDS after its begin."""
        ends_at = asyncio.get_running_loop().time() + STREAM_SECONDS
        while True:
            try:
                async with asyncio.timeout(min(self._seconds, ends_at - asyncio.get_running_loop().time())):
                    message = await context.read()
            except TimeoutError:
                self._hits["message_seconds"] += 1
                return
            if message is grpc.aio.EOF:
                return
            yield message

    def _make_room(self) -> None:
        if len(self._waiting) >= self._most:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            with suppress(RuntimeError):  # it ends already, its time is up
                oldest.reschedule(0)  # long past: it ends at once


async def _only_message(context: Context) -> bytes:
    message: Any = await context.read()
    if message is grpc.aio.EOF:
        raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "this method takes one message, none came")
    if await context.read() is not grpc.aio.EOF:
        raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "this method takes one message, more came")
    return bytes(message)
