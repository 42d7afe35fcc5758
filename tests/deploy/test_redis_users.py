"""The users of Redis in deploy/redis: each tier can do its work with its own user, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import redis

from albireo.contract.keys import API_KEYS
from albireo.store.connection import connect
from tests.albireo.store.every_operation import run_every_operation
from tests.deploy.redis_users import Server, server_with_users

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="passwords are made with openssl")
TIERS = ("gateway", "scheduler", "worker", "admin")
DANGEROUS = (
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "CONFIG SET maxmemory 1",
    "CONFIG REWRITE",
    "SHUTDOWN NOSAVE",
    "DEBUG SLEEP 0",
    "REPLICAOF NO ONE",
    "MONITOR",
    "SAVE",
    "SWAPDB 0 1",
    "CLIENT KILL TYPE normal",
    "CLIENT LIST",
    "ACL SETUSER worker allcommands",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "SORT albireo:{m}:groups",
    "MIGRATE h 1 k 0 1",
    "RESTORE albireo:{m}:x 0 x",
    "MODULE LIST",
    "SET elsewhere 1",
    "GET elsewhere",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server_with_users(tmp_path_factory.mktemp("users")) as found:
        yield found


def test_every_password_is_another_and_none_is_in_the_file(server: Server) -> None:
    passwords = {user: (server.directory / f"{user}.password").read_text() for user in TIERS}
    assert len({*passwords.values()}) == len(TIERS)
    text = (server.directory / "users.acl").read_text()
    assert not any(password in text for password in passwords.values())


def test_without_a_user_nothing_goes(server: Server) -> None:
    for url in (f"redis://127.0.0.1:{server.port}", f"redis://gateway:wrong@127.0.0.1:{server.port}"):
        with connect(url) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


@pytest.mark.parametrize("user", TIERS)
@pytest.mark.parametrize("command", DANGEROUS)
def test_what_is_dangerous_is_refused(server: Server, user: str, command: str) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        server.run(user, *command.split())
    assert server.run(user, "PING")


@pytest.mark.parametrize("user", ["scheduler", "worker"])
@pytest.mark.parametrize("command", ["HGETALL", "HSET", "DEL"])
def test_only_gateways_and_admins_reach_the_api_keys(server: Server, user: str, command: str) -> None:
    arguments = ("f", "v") if command == "HSET" else ()
    with pytest.raises(redis.exceptions.NoPermissionError):
        server.run(user, command, API_KEYS, *arguments)
    script = "return redis.call('HGETALL', KEYS[1])"
    with pytest.raises(redis.exceptions.ResponseError):
        server.run(user, "EVAL", script, 1, API_KEYS)


@pytest.mark.parametrize("key", ["inbox", "lease", "notices", "request:r", "model"])
def test_a_worker_reaches_only_what_groups_write_and_read(server: Server, key: str) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        server.run("worker", "DEL", f"albireo:{{m}}:{key}")


def test_all_tiers_do_their_work_with_their_users(server: Server) -> None:
    assert server.run("admin", "ACL", "WHOAMI") == b"admin"
    run_every_operation(server.url)
