"""Requests that cannot be decoded get INVALID_ARGUMENT; grpc itself would say INTERNAL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

Request = TypeVar("Request")


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Lets a message that is no valid protobuf (or has text that is no UTF-8) through to a refusal."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        decode = handler.request_deserializer

        def lenient(data: bytes) -> Any:
            try:
                return decode(data)
            except DecodeError as error:
                return error

        streams = handler.response_streaming
        call = handler.unary_stream if streams else handler.unary_unary

        async def generate_or_refuse(request: Any, context: Any) -> Any:
            await _refuse_error(request, context)
            async for event in call(request, context):
                yield event

        async def answer_or_refuse(request: Any, context: Any) -> Any:
            await _refuse_error(request, context)
            return await call(request, context)

        wrap = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        checked = generate_or_refuse if streams else answer_or_refuse
        return wrap(checked, lenient, handler.response_serializer)


async def _refuse_error(request: object, context: Any) -> None:
    if isinstance(request, DecodeError):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a valid message: {request}")
