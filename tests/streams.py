"""What ``inference.proto`` promises of a stream's end, checked wherever a test reads one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc

from albireo.v1 import inference_pb2 as api


def check_status(events: Sequence[api.GenerateEvent], code: grpc.StatusCode, details: str) -> None:
    """OK where no event is an error, else the status of the whole's error, or of the lowest branch's."""
    errors = [event.error for event in events if event.HasField("error")]
    if not errors:
        assert code is grpc.StatusCode.OK, details
        return
    error = min(errors, key=lambda error: error.index if error.HasField("index") else -1)
    assert (code.value[0], details) == (error.code, error.message)


def rest(call: Iterator[api.GenerateEvent]) -> list[api.GenerateEvent]:
    """The events of a synchronous call that were not read yet. One that brings none may raise RpcError."""
    events = []
    try:
        for event in call:
            events.append(event)  # noqa: PERF402  (kept when the call fails)
    except grpc.RpcError:
        if not events:
            raise
    check_status(events, call.code(), call.details() or "")  # type: ignore[attr-defined]
    return events
