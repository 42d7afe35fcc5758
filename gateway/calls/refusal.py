"""Why a call is refused, as an exception that carries its gRPC status."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

Context = grpc.aio.ServicerContext[Any, Any]

RETRY_MS = 250
"""When a client may try again after something was full."""
MAX_TOLD = 64
"""Most characters of a client's own text that a message repeats."""
MAX_MESSAGE = 512
"""Most characters of a status: percent-encoded, a character has 12 bytes at most, and gRPC takes 8 KiB of
headers."""


class Refusal(Exception):
    """Ends a call before it is accepted; ``retry_ms`` asks the client to wait so long before a retry."""

    def __init__(self, code: grpc.StatusCode, message: str, *, retry_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_ms = retry_ms


def cut(text: str, most: int = MAX_TOLD) -> str:
    """``text``, shortened to ``most`` characters where it is longer: clients may send megabytes."""
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
    return Refusal(grpc.StatusCode.UNAVAILABLE, problem)


async def refuse(context: Context, refusal: Refusal) -> NoReturn:
    """Ends the call with the refusal's status."""
    if refusal.retry_ms is not None:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", str(refusal.retry_ms)),))
    await context.abort(refusal.code, cut(refusal.message, MAX_MESSAGE))
    raise AssertionError("abort returned")
