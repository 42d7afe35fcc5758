"""Why a stream, or one branch of it, cannot continue."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import RETRY_MS, Refusal


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a stream, or one branch of it, cannot continue.

    A :class:`Refusal` ends a call before its request is accepted, a ``Failure`` one that runs.
    """

    code: grpc.StatusCode
    message: str
    retryable: bool

    def refusal(self) -> Refusal:
        """The same as the status that ends the call."""
        return Refusal(self.code, self.message, retry_ms=RETRY_MS if self.retryable else None)

    def event(self, index: int | None = None) -> api.GenerateEvent:
        """``index``: the only branch that it ends; None: it ends the whole stream."""
        code: int = self.code.value[0]
        error = api.Error(code=code, message=self.message, retryable=self.retryable, index=index)
        return api.GenerateEvent(error=error)


def unavailable(message: str) -> Failure:
    """The same request may succeed later."""
    return Failure(grpc.StatusCode.UNAVAILABLE, message, retryable=True)


CLOSED = unavailable("the scheduler was restarted")
LAPSED = unavailable("this gateway did not renew its heartbeat in time, so its requests were cancelled")
BEHIND = unavailable("this gateway fell behind the logs")
UNREADABLE = unavailable("the scheduler's notices cannot be read")
NO_SCHEDULER = unavailable("the scheduler is gone")
STOPPING = unavailable("the gateway stops")
GONE = unavailable("the model is not served any more")
REFUSED = Failure(
    grpc.StatusCode.FAILED_PRECONDITION, "no worker group can hold this request", retryable=False
)
NOT_DRAWN = Failure(
    grpc.StatusCode.INTERNAL,
    "no token can be drawn: the model's logits are not numbers, or the controls leave none",
    retryable=False,
)
GROUPS_DIED = Failure(
    grpc.StatusCode.INTERNAL, "worker groups died one after the other while they computed it", retryable=False
)
