"""Every operation of the stores of all tiers, once, on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from albireo.contract.api_keys import ApiKey
from albireo.contract.keys import Keys
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

KEYS = Keys("m")
KEY = ApiKey(digest=bytes(32), tenant="a", least_priority=0, greatest_priority=0, created_at=0)


def run_every_operation(url_of: Callable[[str], str]) -> None:
    """``url_of``: the Redis, for a tier: gateway, scheduler, worker, or admin."""
    scheduler = RedisStore.open(url_of("scheduler"), KEYS)
    worker = RedisStore.open(url_of("worker"), KEYS)
    try:
        asyncio.run(_tiers(url_of, scheduler, worker))
    finally:
        scheduler.close()
        worker.close()


async def _tiers(url_of: Callable[[str], str], scheduler: RedisStore, worker: RedisStore) -> None:
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
    await _gateway(url_of)
    inbox = scheduler.log(KEYS.inbox)
    assert inbox.trim(inbox.last()) == 1
    scheduler.count_departures(epoch=epoch, total=1)
    assert set(scheduler.tenant_policies()) == {"a"}
    scheduler.report_tenants({}, epoch=epoch, number=1)
    scheduler.close_group(opening, "over", notice=2, lease_value=b"s")
    worker.leave("w")
    group.release()
    lease.release()


async def _gateway(url_of: Callable[[str], str]) -> None:
    with connect(url_of("admin")) as admin:
        ApiKeyStore(admin).put("0" * 16, KEY)
        assert ApiKeyStore(admin).all() == ({"0" * 16: KEY}, [])
        TenantPolicies(admin).put("a", TenantPolicy())
        assert admin.info()
        assert admin.config_get("maxmemory")
    keys = RedisApiKeys(url_of("gateway"))
    assert (await keys.read()).version == await keys.version()
    await keys.close()
    gateway = RedisGatewayStore(url_of("gateway"), KEYS, "g")
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
    cell = RedisCellStore(url_of("gateway"))
    assert await cell.models() == {"m"}
    assert set(await cell.tenant_policies()) == {"a"}
    await cell.close()
    await gateway.stop_heartbeat()
    await gateway.close()
    with connect(url_of("admin")) as admin:
        assert ApiKeyStore(admin).remove("0" * 16)
