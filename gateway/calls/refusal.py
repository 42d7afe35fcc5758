"""Why a call is refused: an exception with the gRPC status. Raised everywhere below the services."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

Context = grpc.aio.ServicerContext[Any, Any]

RETRY_MS = 250
"""Milliseconds after which a client may retry if a limit was reached."""
MAX_QUOTED = 64
"""Most characters of a client's own text that a message quotes."""
MAX_MESSAGE = 512
"""Most characters of a status message: percent-encoded a character has at most 12 bytes, and gRPC accepts
8 KiB of headers."""


class Refusal(Exception):
    """Ends a call before its request is accepted. ``retry_ms``: milliseconds to wait before a retry."""

    def __init__(self, code: grpc.StatusCode, message: str, *, retry_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_ms = retry_ms


def cut(text: str, most: int = MAX_QUOTED) -> str:
    """``text``, shortened to ``most`` characters: clients may send megabytes."""
    return text if len(text) <= most else f"{text[:most]}..."


def invalid(field: str, problem: str) -> Refusal:
    """INVALID_ARGUMENT that names the field."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {problem}")


def unsupported(field: str, problem: str = "not supported") -> Refusal:
    """FAILED_PRECONDITION that names the field."""
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, f"{field}: {problem}")


def exhausted(problem: str) -> Refusal:
    """RESOURCE_EXHAUSTED that asks for a retry."""
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, problem, retry_ms=RETRY_MS)


def unavailable(problem: str) -> Refusal:
    """UNAVAILABLE: the same call may succeed later."""
    return Refusal(grpc.StatusCode.UNAVAILABLE, problem)


async def refuse(context: Context, refusal: Refusal) -> NoReturn:
    """Ends the call with the refusal's status, by the exception of gRPC's ``abort``."""
    if refusal.retry_ms is not None:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", str(refusal.retry_ms)),))
    await context.abort(refusal.code, cut(refusal.message, MAX_MESSAGE))
    raise AssertionError("abort returned")
