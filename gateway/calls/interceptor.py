"""Every call of the server goes through here, one phase after the other, each of them bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health

from gateway.calls.arrivals import Arrivals
from gateway.calls.limits import Places
from gateway.calls.refusal import Context, Refusal, invalid, refuse
from gateway.calls.wire import check_fields
from gateway.calls.work import SMALL_BYTES, WorkThreads
from gateway.calls.writing import Writer

HEALTH = f"/{health.SERVICE_NAME}/"
MAX_HEALTH_CALLS = 256
MAX_REFLECTION_CALLS = 64


@dataclass(frozen=True, slots=True)
class CallBounds:
    """How many calls may be in a phase at once, and for how long."""

    arriving: int  # their requests have not come whole
    arriving_seconds: float
    answering: int  # all others, but for those of health and reflection
    write_seconds: float  # a message waits for its client


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Reads the requests and writes the answers of all methods.

    grpc.aio itself waits without end for a request that does not come, never answers a call that has
    none, and counts all of them as served. What the client sees of a method stays the same: on the wire
    a call with one message looks like a stream of one.
    """

    def __init__(self, bounds: CallBounds, work: WorkThreads, hits: Counter[str]) -> None:
        """``hits`` counts, by bound, the calls that it ended."""
        self._arrivals = Arrivals(bounds.arriving, bounds.arriving_seconds, hits)
        self._places = Places(bounds.answering, "calls", "calls", hits)
        # Apart, so that no other calls can keep a probe out, and these keep no other calls out.
        self._health = Places(MAX_HEALTH_CALLS, "health_calls", "calls for health", hits)
        self._asking = Places(MAX_REFLECTION_CALLS, "reflection_calls", "calls for reflection", hits)
        self._writer = Writer(bounds.write_seconds, hits)
        self._work = work

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None

        async def serve(requests: object, context: Context) -> None:
            try:
                await self._serve(handler, handler_call_details.method, context)
            except Refusal as refusal:
                with suppress(grpc.aio.InternalError):  # the transport has ended the call already
                    await refuse(context, refusal)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, handler: Any, method: str, context: Context) -> None:
        if handler.request_streaming:  # of reflection alone
            with self._asking.one():
                await self._stream(
                    handler, handler.stream_stream(self._decoded(handler, context), context), context
                )
            return
        data = await self._arrivals.request(context)
        with (self._health if method.startswith(HEALTH) else self._places).one():
            request = await self._decode(handler.request_deserializer, data)
            if handler.response_streaming:
                await self._stream(handler, handler.unary_stream(request, context), context)
            else:
                answer = await handler.unary_unary(request, context)
                await self._writer.write(context, handler.response_serializer(answer))

    async def _stream(self, handler: Any, answers: Any, context: Context) -> None:
        async with aclosing(answers):  # now, not when the collector comes by: requests end with their calls
            async for answer in answers:
                await self._writer.write(context, handler.response_serializer(answer))

    async def _decoded(self, handler: Any, context: Context) -> AsyncIterator[Any]:
        async for data in self._arrivals.requests(context):
            yield await self._decode(handler.request_deserializer, data)

    async def _decode(self, decode: Any, data: bytes) -> Any:
        """Raises Refusal for what is no valid protobuf or has text that is no UTF-8."""

        def decoded() -> Any:
            if len(data) >= SMALL_BYTES:
                check_fields(data, decode.__self__.DESCRIPTOR)
            return decode(data)

        try:
            return await self._work.run(len(data), decoded)
        except DecodeError as error:
            raise invalid("message", f"not a valid one: {error}") from None
