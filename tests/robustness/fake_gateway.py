"""A gateway with scripted answers, for commands in other processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from albireo.v1 import control_pb2 as control
from albireo.v1 import control_pb2_grpc, inference_pb2_grpc
from albireo.v1 import inference_pb2 as api


class FakeGateway(inference_pb2_grpc.InferenceServicer, control_pb2_grpc.ControlServicer):
    """``text`` is the answer; a prompt with "fail" in it fails, one with "wait" never ends."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[list[str]] = []  # contents of the messages of each request
        self.streaming = threading.Event()  # a request that waits has had its first tokens
        self.cancelled = threading.Event()
        self.target = ""

    def Generate(self, request: api.GenerateRequest, context: Any) -> Iterator[api.GenerateEvent]:
        contents = [message.content for message in request.chat.messages]
        self.asked.append(contents)
        yield api.GenerateEvent(accepted=api.Accepted(request_id="r", branch_seeds=[1]))
        yield api.GenerateEvent(tokens=api.Tokens(ids=[5], text=self.text))
        if contents and "fail" in contents[-1]:
            error = api.Error(code=14, message="gone [/x]", retryable=True)
            yield api.GenerateEvent(error=error)
            context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
        if contents and "wait" in contents[-1]:
            context.add_callback(self.cancelled.set)
            self.streaming.set()
            self.cancelled.wait(30)
        yield api.GenerateEvent(finished=api.Finished(reason="FINISH_REASON_STOP"))

    def GetModelInfo(self, request: control.GetModelInfoRequest, context: Any) -> control.ModelInfo:
        return control.ModelInfo(model="tiny", vocab_size=100, max_model_len=50, tp=1)


class Refusing(FakeGateway):
    """Every request fails, with square brackets."""

    def Generate(self, request: api.GenerateRequest, context: Any) -> Iterator[api.GenerateEvent]:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full [/red] [bold]")
        yield api.GenerateEvent()


@contextmanager
def serving(gateway: FakeGateway) -> Iterator[FakeGateway]:
    server = grpc.server(ThreadPoolExecutor(8))
    inference_pb2_grpc.add_InferenceServicer_to_server(gateway, server)
    control_pb2_grpc.add_ControlServicer_to_server(gateway, server)
    gateway.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield gateway
    finally:
        gateway.cancelled.set()
        server.stop(None).wait(5)
