"""A server that speaks as much of Redis as the doctor asks, late and by a clock of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


def _commands(connection: socket.socket) -> Iterator[bytes]:
    reader = connection.makefile("rb")
    while line := reader.readline():
        words = []
        for _ in range(int(line[1:])):
            length = int(reader.readline()[1:])
            words.append(reader.read(length + 2)[:-2])
        yield words[0].upper()


def _serve(listener: socket.socket, delay: float, ahead: float) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            for command in _commands(connection):
                time.sleep(delay)
                if command == b"TIME":
                    seconds, micros = divmod(round((time.time() + ahead) * 1e6), 1_000_000)
                    parts = [str(part).encode() for part in (seconds, micros)]
                    connection.sendall(b"*2\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
                else:
                    connection.sendall(b"+PONG\r\n" if command == b"PING" else b"+OK\r\n")


@contextmanager
def odd_redis(*, delay: float = 0.0, ahead: float = 0.0) -> Iterator[str]:
    """Its URL. ``delay``: seconds before each answer; ``ahead``: seconds that its clock is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=_serve, args=(listener, delay, ahead), daemon=True)
        server.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        listener.shutdown(socket.SHUT_RDWR)
    server.join(timeout=5)
