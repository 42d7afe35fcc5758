"""Records the steps that a running stack executes, for ``albireo trace``."""

from __future__ import annotations

import threading

import grpc

from albireo.client import Client
from albireo.runtime.access import ANYONE, Access
from albireo.v1 import control_pb2 as control


def record_steps(
    target: str, model: str, seconds: float, access: Access = ANYONE
) -> list[control.StepRecord]:
    """All steps of the next ``seconds``. ``model``: see ``Client.watch_steps``. Raises grpc.RpcError."""
    records: list[control.StepRecord] = []
    with Client(target, access) as client:
        call = client.watch_steps(model)
        timer = threading.Timer(seconds, call.cancel)
        timer.start()
        try:
            for record in call:
                records.append(record)  # noqa: PERF402  (kept when the call is cancelled)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:
                raise
        finally:
            timer.cancel()
    return records
