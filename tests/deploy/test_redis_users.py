"""The users of Redis in deploy/redis: each tier can do its work with its own user, and nothing else."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator

import pytest
import redis

from albireo.contract.api_keys import ApiKey
from albireo.contract.keys import API_KEYS, Keys
from albireo.contract.tenants import TenantPolicy
from albireo.store.api_keys import ApiKeyStore
from albireo.store.connection import connect
from albireo.store.interface import EntryId, GroupOpening
from albireo.store.redis_store import RedisStore
from albireo.store.tenant_policies import TenantPolicies
from gateway.store.api_keys import RedisApiKeys
from gateway.store.cell_store import RedisCellStore
from gateway.store.interface import NewRequest, Position
from gateway.store.redis_store import RedisGatewayStore
from tests.deploy.redis_users import Server, server_with_users

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="passwords are made with openssl")
KEYS = Keys("m")
TIERS = ("gateway", "scheduler", "worker", "admin")
KEY = ApiKey(digest=bytes(32), tenant="a", least_priority=0, greatest_priority=0, created_at=0)
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
    """Every operation of their stores."""
    scheduler = RedisStore.open(server.url("scheduler"), KEYS)
    worker = RedisStore.open(server.url("worker"), KEYS)
    try:
        asyncio.run(_work(server, scheduler, worker))
    finally:
        scheduler.close()
        worker.close()


async def _work(server: Server, scheduler: RedisStore, worker: RedisStore) -> None:
    lease = scheduler.lease(KEYS.lease, b"s", ttl=60)
    assert lease.acquire()
    lease.renew()
    epoch, _ = scheduler.open_epoch(lease_value=b"s")
    opening = GroupOpening(epoch, "w", "g0")
    group = worker.lease(KEYS.group("w"), b"info", ttl=60)
    assert group.acquire()
    group.renew()
    worker.register("w")
    worker.announce(KEYS.rank("w", 0), b"beat", ttl=60)
    worker.announce(KEYS.gpu("w", 0), b"gpu", ttl=60)
    worker.ping()
    assert worker.time() > 0
    assert scheduler.groups() == {"w": b"info"}
    scheduler.open_group(opening, notice=1, lease_value=b"s")
    scheduler.put(KEYS.served_model, b"model")
    scheduler.announce(KEYS.load, b"load", ttl=60)
    assert scheduler.get([KEYS.rank("w", 0), KEYS.gateway("g")]) == [b"beat", None]
    plans = scheduler.log(KEYS.plans("w"), keep=100)
    plans.append(EntryId(epoch, 1), b"plan")
    with pytest.raises(Exception, match="another writer"):
        plans.append(EntryId(epoch, 1), b"another")
    assert len(worker.log(KEYS.plans("w")).read(f"{epoch}-0", 0)) == 1
    results = worker.log(KEYS.results("w"), keep=100)
    assert results.last() == f"{epoch}-0"
    results.append(EntryId(epoch, 1), b"result")
    assert scheduler.read({KEYS.results("w"): f"{epoch}-0", KEYS.inbox: "0"}, 0.01)
    await _gateway_work(server)
    inbox = scheduler.log(KEYS.inbox)
    assert inbox.trim(inbox.last()) == 1
    scheduler.count_departures(epoch=epoch, total=1)
    assert set(scheduler.tenant_policies()) == {"a"}
    scheduler.report_tenants({}, epoch=epoch, number=1)
    scheduler.close_group(opening, "over", notice=2, lease_value=b"s")
    worker.leave("w")
    group.release()
    lease.release()


async def _gateway_work(server: Server) -> None:
    with connect(server.url("admin")) as admin:
        ApiKeyStore(admin).put("0" * 16, KEY)
        assert ApiKeyStore(admin).all() == ({"0" * 16: KEY}, [])
        TenantPolicies(admin).put("a", TenantPolicy())
        assert admin.info()
        assert admin.config_get("maxmemory")
        assert admin.acl_whoami() == "admin"
    keys = RedisApiKeys(server.url("gateway"))
    assert (await keys.read()).version == await keys.version()
    await keys.close()
    gateway = RedisGatewayStore(server.url("gateway"), KEYS, "g")
    await gateway.start_heartbeat(60)
    liveness = await gateway.check(60)
    assert (liveness.leased, liveness.groups, liveness.model) == (True, 1, b"model")
    position = await gateway.position()
    assert set(position.groups) == {"w"}
    assert (await gateway.read(Position(position.notices, {"w": EntryId(0, 0)}), 0.01)).results["w"]
    for request_id in ("r", "s"):
        new = NewRequest(
            request_id=request_id,
            tenant="a",
            digest="d",
            entry=b"entry",
            cancellation=b"cancellation",
            branches=1,
            max_queue=10,
            record_seconds=60,
        )
        assert (await gateway.submit(new))[0] == "accepted"
    assert await gateway.cancel_known("r") == "cancelled"
    await gateway.note_end("r", b"cancellation")
    await gateway.cancel(b"cancellation")
    await gateway.withdraw("s", b"cancellation")
    assert await gateway.load() == b"load"
    assert await gateway.gpus([("w", 0)]) == [b"gpu"]
    cell = RedisCellStore(server.url("gateway"))
    assert await cell.models() == {"m"}
    assert set(await cell.tenant_policies()) == {"a"}
    await cell.close()
    await gateway.stop_heartbeat()
    await gateway.close()
    with connect(server.url("admin")) as admin:
        assert ApiKeyStore(admin).remove("0" * 16)
