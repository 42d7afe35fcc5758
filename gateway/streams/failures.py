"""Why whole streams end without an answer."""

from __future__ import annotations

import grpc

from gateway.streams.branch import Failure


def unavailable(message: str) -> Failure:
    """The same request may succeed later."""
    return Failure(grpc.StatusCode.UNAVAILABLE, message, retryable=True)


CLOSED = unavailable("the scheduler or the worker group was restarted")
LAPSED = unavailable("this gateway stood still, and its requests were given up")
BEHIND = unavailable("this gateway fell behind the results log")
UNREADABLE = unavailable("the results log cannot be read")
NO_SCHEDULER = unavailable("the scheduler is gone")
REFUSED = Failure(
    grpc.StatusCode.FAILED_PRECONDITION, "the worker group cannot hold this request", retryable=False
)
