"""What the client library makes of its arguments; its calls are tested against the live stack."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest

from albireo.client import Client, client, request_for
from albireo.v1 import control_pb2 as control
from albireo.v1 import control_pb2_grpc
from gateway.server import MIN_PING_MS
from tests.stack import wait_for


def test_each_kind_of_prompt_goes_into_its_field() -> None:
    assert request_for("hi").chat.messages[0].content == "hi"
    assert request_for("hi", raw=True).text == "hi"
    assert list(request_for([5, 6]).token_ids.ids) == [5, 6]
    turns = request_for([("user", "a"), ("assistant", "b")]).chat.messages
    assert [(turn.role, turn.content) for turn in turns] == [("user", "a"), ("assistant", "b")]


def test_options_find_their_message_and_none_is_left_out() -> None:
    request = request_for("hi", request_id="r", priority=-2, tenant="t", top_k=0, max_tokens=None, stop=["x"])
    assert (request.request_id, request.priority, request.tenant) == ("r", -2, "t")
    assert list(request.sampling.stop) == ["x"]
    assert request.sampling.HasField("top_k")
    assert not request.sampling.HasField("max_tokens")


def test_one_stop_string_is_one_and_not_its_characters() -> None:
    assert list(request_for("hi", stop="abc").sampling.stop) == ["abc"]
    assert list(request_for("hi", stop=("ab", "c")).sampling.stop) == ["ab", "c"]


def test_every_sampling_option_finds_its_field() -> None:
    options: dict[str, Any] = {
        "n": 3,
        "logit_bias": {5: -1.0},
        "allowed_token_ids": [5, 6],
        "bad_token_ids": [6],
    }
    sampling = request_for("hi", **options, typical_p=0.5, prompt_logprobs=0).sampling
    assert (sampling.n, dict(sampling.logit_bias), sampling.typical_p) == (3, {5: -1.0}, 0.5)
    assert (list(sampling.allowed_token_ids), list(sampling.bad_token_ids)) == ([5, 6], [6])
    assert sampling.HasField("prompt_logprobs")


@pytest.mark.parametrize("options", [{"max_tokens": -1}, {"seed": 2**64}])
def test_what_no_field_takes_is_an_error_that_names_the_option(options: dict[str, Any]) -> None:
    [name] = options
    with pytest.raises(ValueError, match=f"^{name}: Value out of range"):
        request_for("hi", **options)


class Silent(control_pb2_grpc.ControlServicer):
    """Steps that never come."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def WatchSteps(self, request: control.WatchStepsRequest, context: Any) -> Iterator[control.StepRecord]:
        self.over.wait(60)
        yield from ()


@contextmanager
def silent_server(min_ping_ms: int) -> Iterator[int]:
    """Port of a server that puts up with a ping every ``min_ping_ms``, as a gateway does."""
    options = [("grpc.http2.min_ping_interval_without_data_ms", min_ping_ms)]
    server, silent = grpc.server(ThreadPoolExecutor(1), options=options), Silent()
    control_pb2_grpc.add_ControlServicer_to_server(silent, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        silent.over.set()
        server.stop(None).wait(5)


PING = b"\0\0\x08\x06\0"
"""How a PING frame of 8 bytes that is no answer begins (RFC 9113, 6.7)."""


class Cable:
    """A connection that can break without notice to either end."""

    def __init__(self, port: int) -> None:
        self._to, self._cut = port, threading.Event()
        self.pings = 0  # PING frames of both ends, without answers
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut.set()

    def close(self) -> None:
        for end in (self._listener, *self._sockets):
            end.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()  # one is all there is
        far = socket.create_connection(("127.0.0.1", self._to), timeout=60)
        self._sockets += [near, far]
        for pair in ((near, far), (far, near)):
            threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.pings += data.count(PING)
                if not self._cut.is_set():
                    sink.sendall(data)
        except OSError:
            pass


def test_a_client_that_only_listens_finds_a_gateway_that_is_gone_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "KEEPALIVE_MS", 200)
    monkeypatch.setattr(client, "KEEPALIVE_TIMEOUT_MS", 400)
    with ExitStack() as stack:
        cable = Cable(stack.enter_context(silent_server(min_ping_ms=100)))
        stack.callback(cable.close)
        call = stack.enter_context(Client(f"127.0.0.1:{cable.port}")).watch_steps()
        wait_for(lambda: cable.pings >= 5, 20, "the client does not ping")
        assert call.is_active()  # neither end takes so many pings for abuse
        cable.cut()
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as lost:
            next(call)
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began < 10


def test_a_client_pings_no_more_often_than_a_gateway_puts_up_with() -> None:
    assert client.KEEPALIVE_MS > MIN_PING_MS
