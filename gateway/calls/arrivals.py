"""The first phase of a call: its headers have arrived, its request has not.

The interceptor reads the requests of all calls here, on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc

from gateway.calls.refusal import Context, Refusal, exhausted

STREAM_SECONDS = 300.0
"""Longest time in which a call may send requests."""


class Arrivals:
    """Reads requests. The number of calls that wait for one, and the time, are bounded.

    At the limit a new call ends the one that has waited longest. Ordinary clients send headers and request
    together, so theirs is hardly ever the one.
    """

    def __init__(self, most: int, seconds: float, hits: Counter[str]) -> None:
        """``most``: calls that wait at once. ``seconds``: from a call's headers to its complete request."""
        self._most = most
        self._seconds = seconds
        self._hits = hits
        self._waiting: dict[asyncio.Timeout, bool] = {}  # an ordered set: oldest first, all True

    async def request(self, context: Context) -> bytes:
        """The encoded message of a call that has exactly one.

        Raises Refusal: UNIMPLEMENTED if the client sent none or several (gRPC's "request cardinality
        violation"), DEADLINE_EXCEEDED if it took too long, RESOURCE_EXHAUSTED if a newer call replaced it.
        """
        self._end_oldest_if_full()
        replaced = False
        try:
            async with asyncio.timeout(self._seconds) as limit:
                self._waiting[limit] = True
                try:
                    return await _only_message(context)
                finally:
                    replaced = not self._waiting.pop(limit, False)
        except TimeoutError:
            bound = "max_arriving" if replaced else "message_seconds"
            self._hits[bound] += 1
            if replaced:
                raise exhausted(f"{self._most} newer calls wait for their requests too ({bound})") from None
            raise Refusal(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"the request was not complete within {self._seconds:g} s ({bound})",
            ) from None

    async def requests(self, context: Context) -> AsyncIterator[bytes]:
        """The encoded messages of a call that may have several. They end at one that is late, and
        STREAM_SECONDS after the call began."""
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

    def _end_oldest_if_full(self) -> None:
        if len(self._waiting) >= self._most:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            with suppress(RuntimeError):  # it has expired already
                oldest.reschedule(0)  # in the past: it expires at once


async def _only_message(context: Context) -> bytes:
    message: Any = await context.read()
    if message is grpc.aio.EOF:
        raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "this method takes one message, none came")
    if await context.read() is not grpc.aio.EOF:
        raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "this method takes one message, more came")
    return bytes(message)
