"""What each error of Redis does to a writer of the logs.

The server gives the errors itself, each as it does in operation. Their meaning is documented in Redis's
documentation and where its ``server.c`` makes them (``createSharedObjects``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import redis
from redis.exceptions import RedisError

from albireo.contract.keys import Keys
from albireo.local.redis_server import LocalRedis
from albireo.store.connection import RECONNECT_SECONDS, connect
from albireo.store.interface import EntryId, Fenced, GroupOpening
from albireo.store.redis_log import RedisLog
from albireo.store.redis_store import RedisStore
from tests.stack import wait_for

KEYS = Keys("m")
RESULTS = KEYS.results("life")
ID = EntryId(1, 1)
LASTS = 0.6
"""Seconds for which an error that passes by itself lasts here; more than a lease of these tests."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of its own: these tests turn its settings."""
    found = LocalRedis(tmp_path_factory.mktemp("errors"))
    yield found.url
    found.stop()


@pytest.fixture
def admin(server: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server) as client:
        client.flushall()
        yield client


def open_logs(client: redis.Redis) -> int:
    """Opens an epoch, and in it the logs of one group, under the lease of ``me``."""
    store = RedisStore(client, KEYS)
    epoch, _ = store.open_epoch(lease_value=b"me")
    store.open_group(GroupOpening(epoch, "life", "g0"), notice=1, lease_value=b"me")
    return epoch


@contextmanager
def replica(admin: redis.Redis, *, stale: str) -> Iterator[None]:
    """A replica of a primary that is not there. ``stale``: whether it answers reads."""
    admin.config_set("replica-serve-stale-data", stale)
    admin.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        admin.replicaof("NO", "ONE")


@contextmanager
def no_disk(admin: redis.Redis) -> Iterator[None]:
    """Snapshots are on, and the last one could not be written: a directory has its name."""
    occupied = Path(str(admin.config_get("dir")["dir"])) / "dump.rdb"
    occupied.mkdir()
    admin.config_set("save", "3600 1")
    admin.bgsave()
    wait_for(
        lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err", 10, "the snapshot was written"
    )
    try:
        yield
    finally:
        admin.config_set("save", "")
        occupied.rmdir()


@contextmanager
def busy(admin: redis.Redis) -> Iterator[None]:
    """A script runs for longer than it should."""
    admin.config_set("lua-time-limit", 50)
    runner = threading.Thread(target=_run_for_ever, args=(admin,))
    runner.start()
    wait_for(lambda: _is_busy(admin), 10, "the script does not hold Redis up")
    try:
        yield
    finally:
        admin.script_kill()
        runner.join()


def _is_busy(admin: redis.Redis) -> bool:
    try:
        admin.ping()
    except RedisError as error:
        return "BUSY" in str(error)
    return False


def _run_for_ever(admin: redis.Redis) -> None:
    with pytest.raises(RedisError):
        admin.eval("while true do end", 0)


@contextmanager
def no_more_clients(admin: redis.Redis) -> Iterator[None]:
    """It takes no more connections, and those of others are closed."""
    admin.config_set("maxclients", 1)
    admin.client_kill_filter(_type="normal", skipme=True)
    try:
        yield
    finally:
        admin.config_set("maxclients", 10_000)


@contextmanager
def no_replicas(admin: redis.Redis) -> Iterator[None]:
    """It takes no write that no replica takes too."""
    admin.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        admin.config_set("min-replicas-to-write", 0)


PASSING: dict[str, Callable[[redis.Redis], AbstractContextManager[None]]] = {
    "READONLY": lambda admin: replica(admin, stale="yes"),
    "MASTERDOWN": lambda admin: replica(admin, stale="no"),
    "MISCONF": no_disk,
    "BUSY": busy,
    "NOREPLICAS": no_replicas,
    "max number of clients": no_more_clients,
}


@pytest.mark.parametrize("name", PASSING)
def test_an_error_that_passes_is_retried(server: str, admin: redis.Redis, name: str) -> None:
    client, leases = connect(server), connect(server)
    log = RedisLog(client, RESULTS, keep=100)
    lease = RedisStore(leases, KEYS).lease(KEYS.lease, b"me", ttl=LASTS / 2)
    assert lease.acquire()
    open_logs(client)
    log.append(ID, b"before")
    raised: list[Exception] = []

    def write() -> None:
        try:
            log.append(EntryId(1, 2), b"during")
            lease.renew()
            RedisStore(client, KEYS).open_epoch(lease_value=b"me")
        except (RedisError, Fenced) as error:
            raised.append(error)

    writer = threading.Thread(target=write)
    with PASSING[name](admin):
        writer.start()
        time.sleep(LASTS)
        assert writer.is_alive()
    writer.join(10)
    assert raised == []
    assert RedisLog(client, KEYS.notices).last() == "2-0"
    assert admin.xlen(RESULTS) == 3


def test_a_full_memory_ends_no_writer_of_the_logs(server: str, admin: redis.Redis) -> None:
    client = connect(server)
    log = RedisLog(client, RESULTS, keep=100)
    lease = RedisStore(client, KEYS).lease(KEYS.lease, b"me", ttl=5)
    admin.config_set("maxmemory", "100kb")
    try:
        assert lease.acquire()
        lease.renew()
        epoch = open_logs(client)
        for step in range(1, 51):
            log.append(EntryId(epoch, step), b"x" * 100)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            admin.set("another", "x")
    finally:
        admin.config_set("maxmemory", 0)
    assert admin.xlen(RESULTS) == 51


@contextmanager
def restricted(admin: redis.Redis) -> Iterator[str]:
    """Credentials of a user who may read and not write."""
    admin.acl_setuser(
        "reader", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all", "-@write"], reset=True
    )
    yield "reader:pw"


@contextmanager
def other_type(admin: redis.Redis) -> Iterator[str]:
    admin.set(RESULTS, "no stream")
    yield ""


@contextmanager
def wrong_password(_: redis.Redis) -> Iterator[str]:
    yield "reader:another"


@contextmanager
def password_wanted(admin: redis.Redis) -> Iterator[str]:
    admin.config_set("requirepass", "secret")
    try:
        yield ""
    finally:
        admin.config_set("requirepass", "")


@pytest.mark.parametrize("trouble", [restricted, other_type, wrong_password, password_wanted])
def test_an_error_that_does_not_pass_is_raised_at_once_and_is_not_fenced(
    server: str, admin: redis.Redis, trouble: Callable[[redis.Redis], AbstractContextManager[str]]
) -> None:
    with trouble(admin) as credentials:
        client = connect(server.replace("unix://", f"unix://{credentials}@" if credentials else "unix://"))
        began = time.monotonic()
        with pytest.raises(RedisError) as raised:
            RedisLog(client, RESULTS, keep=100).append(ID, b"x")
        assert not isinstance(raised.value, Fenced)
        assert time.monotonic() - began < RECONNECT_SECONDS / 2


def test_the_service_that_cannot_go_on_says_why_in_one_line(server: str, admin: redis.Redis) -> None:
    """A scheduler process whose password is refused."""
    admin.config_set("requirepass", "secret")
    try:
        environment = {**os.environ, "ALBIREO_REDIS_URL": server, "ALBIREO_SCHEDULER_PORT": "0"}
        ended = subprocess.run(
            [sys.executable, "-m", "albireo.cli", "scheduler"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
        )
    finally:
        admin.config_set("requirepass", "")
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert "NOAUTH" in last
    assert "ALBIREO_REDIS_PASSWORD_FILE" in last
    assert "Traceback" not in ended.stderr
