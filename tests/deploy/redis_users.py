"""A real Redis with the users of deploy/redis/users.acl."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from albireo.local.ports import free_port
from albireo.local.redis_server import find_server
from albireo.store.connection import connect

REDIS = Path(__file__).resolve().parents[2] / "deploy" / "redis"


class Server:
    """A Redis with the users of the file."""

    def __init__(self, port: int, directory: Path) -> None:
        self.port = port
        self.directory = directory

    def url(self, user: str) -> str:
        password = (self.directory / f"{user}.password").read_text()
        return f"redis://{user}:{password}@127.0.0.1:{self.port}/0"

    def run(self, user: str, *command: Any) -> Any:
        with connect(self.url(user)) as client:
            return client.execute_command(*command)


@contextmanager
def server_with_users(directory: Path) -> Iterator[Server]:
    """Passwords are new, in files of the directory."""
    subprocess.run(["sh", REDIS / "make_users.sh", directory], check=True, timeout=30)
    found = Server(free_port("127.0.0.1"), directory)
    with redis_server(
        found.port, directory, lambda: found.run("admin", "PING"), aclfile=directory / "users.acl"
    ):
        yield found


@contextmanager
def redis_server(port: int, directory: Path, ping: Callable[[], Any], **settings: object) -> Iterator[None]:
    """A Redis of its own on loopback, which keeps its files in the directory."""
    options = {"port": port, "bind": "127.0.0.1", "save": "", "dir": directory, **settings}
    arguments = [
        str(part) for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)
    ]
    process = subprocess.Popen([find_server(), *arguments], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 15
    try:
        while True:
            try:
                ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)
