"""The proxy's health check, sent as the bytes of its configuration to a real server."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from albireo.runtime.process import HealthServer

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "haproxy" / "haproxy.cfg"


def check_of(backend: str) -> tuple[bytes, bytes]:
    """What the check of a backend sends, and what it waits for."""
    text = CONFIG.read_text(encoding="utf-8")
    part = text.split(f"\nbackend {backend}\n")[1].split("\n\n")[0]
    sent = b""
    for kind, data in re.findall(r"(?m)^    tcp-check (send|send-binary) ((?:\\ |\S)+)", part):
        if kind == "send-binary":
            sent += bytes.fromhex(data)
        else:
            sent += data.replace("\\ ", " ").replace("\\r", "\r").replace("\\n", "\n").encode()
    [expected] = re.findall(r"(?m)^    tcp-check expect binary (\S+)", part)
    return sent, bytes.fromhex(expected)


def passes(backend: str, port: int) -> bool:
    sent, expected = check_of(backend)
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
        connection.sendall(sent)
        while expected not in received:
            try:
                data = connection.recv(4096)
            except TimeoutError:
                return False
            if not data:
                return False
            received += data
    return True


@pytest.fixture
def server() -> Iterator[HealthServer]:
    server = HealthServer("127.0.0.1", 0)
    yield server
    server.stop()


def test_a_server_is_serving_by_its_own_word_and_alive_before_that(server: HealthServer) -> None:
    assert not passes("serving", server.port)
    assert passes("alive", server.port)
    server.set(serving=True)
    assert passes("serving", server.port)
    assert passes("alive", server.port)
