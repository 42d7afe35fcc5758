"""Asking a service for its health: the function, the command, and the module that health checks run."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from albireo.cli import app
from albireo.health import problem
from albireo.process import LIVE, HealthServer
from albireo.stack import free_port


@pytest.fixture
def server() -> Iterator[HealthServer]:
    server = HealthServer("127.0.0.1", 0)
    yield server
    server.stop()


def module(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "albireo.health", *arguments]
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
