"""Asking a service for its health: the function, the command, and the module that health checks run."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from albireo.cli import app
from albireo.local.ports import free_port
from albireo.runtime.health import problem
from albireo.runtime.process import LIVE, MAX_WATCHERS, HealthServer


@pytest.fixture
def server() -> Iterator[HealthServer]:
    server = HealthServer("127.0.0.1", 0)
    yield server
    server.stop()


def module(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "albireo.runtime.health", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_what_serves_is_no_problem_and_what_does_not_is_named(server: HealthServer) -> None:
    target = f"127.0.0.1:{server.port}"
    assert problem(target) == f"{target}: NOT_SERVING"
    assert not problem(target, service=LIVE)
    assert "NOT_FOUND" in problem(target, service="other")
    server.set(serving=True)
    assert not problem(target)


def test_the_command_and_the_module_agree(server: HealthServer) -> None:
    target = f"127.0.0.1:{server.port}"
    for serving in (False, True):
        server.set(serving=serving)
        command, check = CliRunner().invoke(app, ["health", target]), module(target)
        assert (command.exit_code, check.returncode) == ((0, 0) if serving else (1, 1))
        assert ("NOT_SERVING" in command.output, "NOT_SERVING" in check.stderr) == (not serving, not serving)
    assert module(target, "--service", LIVE).returncode == 0


def test_a_service_that_is_not_there_is_told_in_a_line() -> None:
    found = module(f"127.0.0.1:{free_port('127.0.0.1')}")
    assert found.returncode == 1
    assert found.stderr.startswith("albireo: 127.0.0.1:")
    assert "UNAVAILABLE" in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_service_that_says_nothing_is_given_up_on_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        assert "DEADLINE_EXCEEDED" in problem(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.5)
        assert time.monotonic() - began < 3


STATES = health_pb2.HealthCheckResponse


def watch(channel: grpc.Channel, service: str = "") -> Any:
    request = health_pb2.HealthCheckRequest(service=service)
    stub: Any = health_pb2_grpc.HealthStub(channel)  # its types know of Check alone
    return stub.Watch(request, timeout=30)


def test_watchers_learn_of_changes_and_of_the_end(server: HealthServer) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        seen, unknown = watch(channel), watch(channel, "other")
        assert next(seen).status == STATES.NOT_SERVING
        assert next(unknown).status == STATES.SERVICE_UNKNOWN
        server.set(serving=True)
        assert next(seen).status == STATES.SERVING
        server.stop()
        assert [answer.status for answer in seen] == [STATES.NOT_SERVING]
        assert list(unknown) == []


def test_watchers_that_leave_at_that_moment_do_not_hold_up_a_change(server: HealthServer) -> None:
    def changes() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for turn in range(12):
                watchers = [watch(channel) for _ in range(MAX_WATCHERS)]
                for watcher in watchers:
                    with contextlib.suppress(grpc.RpcError):  # those of the turn before may not be gone yet
                        next(watcher)
                for watcher in watchers:
                    watcher.cancel()
                server.set(serving=turn % 2 == 0)
        server.stop()

    thread = threading.Thread(target=changes, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_watchers_leave_room_for_those_who_ask_once(server: HealthServer) -> None:
    target = f"127.0.0.1:{server.port}"
    with grpc.insecure_channel(target) as channel:
        watchers = [watch(channel) for _ in range(MAX_WATCHERS)]
        for watcher in watchers:
            next(watcher)
        with pytest.raises(grpc.RpcError) as raised:
            next(watch(channel))
        assert isinstance(raised.value, grpc.Call)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not problem(target, service=LIVE)
        watchers[0].cancel()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # the ended watcher is counted for a moment longer
            again = watch(channel)
            with contextlib.suppress(grpc.RpcError):
                assert next(again).status == STATES.NOT_SERVING
                return
        pytest.fail("the ended watcher is still counted")
