"""Serves every call of the gRPC server in phases, each bounded in time and number.

First its caller is found by the API key in its headers; calls for health need none. The phases: its request
arrives, it is decoded, the service method runs, its answers are written. On the event loop; large requests
are decoded on a work thread.
"""

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
from gateway.calls.callers import Keyring
from gateway.calls.limits import AdmissionLimit
from gateway.calls.refusal import Context, Refusal, invalid, refuse
from gateway.calls.wire import check_fields
from gateway.calls.work import SMALL_BYTES, WorkThreads
from gateway.calls.writing import Writer

HEALTH = f"/{health.SERVICE_NAME}/"
MAX_HEALTH_CALLS = 256
MAX_REFLECTION_CALLS = 64


@dataclass(frozen=True, slots=True)
class CallBounds:
    """How many calls may be in a phase at once, and for how many seconds."""

    arriving: int  # calls whose requests are incomplete
    arriving_seconds: float  # from a call's headers to its complete request
    answering: int  # all other calls, except health and reflection
    write_seconds: float  # for a client to accept a message


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Reads the requests and writes the answers of all methods.

    grpc.aio itself waits without limit for a request that does not arrive, never answers a call that has
    none, and counts all of them as served. Clients see no difference: on the wire a call with one message is
    the same as a stream of one message.
    """

    def __init__(self, bounds: CallBounds, keyring: Keyring, work: WorkThreads, hits: Counter[str]) -> None:
        """``hits`` counts, by bound, the calls that were refused or ended."""
        self._keyring = keyring
        self._arrivals = Arrivals(bounds.arriving, bounds.arriving_seconds, hits)
        self._calls = AdmissionLimit(bounds.answering, "calls", "calls", hits)
        # Separate, so that other calls cannot block a health probe, nor these other calls.
        self._health = AdmissionLimit(MAX_HEALTH_CALLS, "health_calls", "calls for health", hits)
        self._reflection = AdmissionLimit(
            MAX_REFLECTION_CALLS, "reflection_calls", "calls for reflection", hits
        )
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
                await self._serve(handler, handler_call_details, context)
            except Refusal as refusal:
                with suppress(grpc.aio.InternalError):  # the call has ended already
                    await refuse(context, refusal)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, handler: Any, details: grpc.HandlerCallDetails, context: Context) -> None:
        if details.method.startswith(HEALTH):
            await self._answer(handler, context, self._health)
        else:
            with self._keyring.admit(details.invocation_metadata or ()):
                await self._answer(handler, context, self._calls)

    async def _answer(self, handler: Any, context: Context, limit: AdmissionLimit) -> None:
        if handler.request_streaming:  # only reflection has such methods
            with self._reflection.admit():
                await self._stream(
                    handler, handler.stream_stream(self._decoded(handler, context), context), context
                )
            return
        data = await self._arrivals.request(context)
        with limit.admit():
            request = await self._decode(handler.request_deserializer, data)
            if handler.response_streaming:
                await self._stream(handler, handler.unary_stream(request, context), context)
            else:
                answer = await handler.unary_unary(request, context)
                await self._writer.write(context, handler.response_serializer(answer))

    async def _stream(self, handler: Any, answers: Any, context: Context) -> None:
        async with aclosing(answers):  # now, not at the next garbage collection: a request ends with its call
            async for answer in answers:
                await self._writer.write(context, handler.response_serializer(answer))

    async def _decoded(self, handler: Any, context: Context) -> AsyncIterator[Any]:
        async for data in self._arrivals.requests(context):
            yield await self._decode(handler.request_deserializer, data)

    async def _decode(self, decode: Any, data: bytes) -> Any:
        """Raises Refusal for invalid protobuf, and for text that is not UTF-8."""

        def decoded() -> Any:
            if len(data) >= SMALL_BYTES:
                check_fields(data, decode.__self__.DESCRIPTOR)
            return decode(data)

        try:
            return await self._work.run(len(data), decoded)
        except DecodeError as error:
            raise invalid("message", f"not valid protobuf: {error}") from None
