"""Quotas of tenants at the acceptance of requests, in Redis and in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from albireo.contract.tenants import TenantPolicy
from albireo.store.interface import TenantReport
from gateway.store.interface import GatewayStore, QuotaExceeded
from tests.gateway.store.scene import KEYS, Scene, in_store_time, request

MINUTE_MS = 60_000


async def exceeded(gateway: GatewayStore, request_id: str, **options: Any) -> tuple[str, int]:
    """The quota that refuses a request, and when to come back."""
    with pytest.raises(QuotaExceeded) as found:
        await gateway.submit(request(request_id, **options))
    return found.value.quota, found.value.retry_ms


@in_store_time
async def test_so_many_branches_of_a_tenant_run_or_wait_at_once_over_all_gateways(scene: Scene) -> None:
    gateway, other = await scene.serving(), await scene.gateway("b")
    limited: dict[str, Any] = {"tenant": "a", "policy": TenantPolicy(max_requests=3)}
    await gateway.submit(request("r", branches=2, **limited))
    assert await exceeded(other, "s", branches=2, **limited) == ("max_requests", 0)
    await other.submit(request("t", **limited))
    await other.submit(request("u", tenant="b", policy=TenantPolicy(max_requests=3)))
    assert await exceeded(gateway, "s", **limited) == ("max_requests", 0)
    scene.store.report_tenants({"a": TenantReport(2, 0, 0)}, epoch=1, number=1)  # they run
    assert await exceeded(gateway, "s", **limited) == ("max_requests", 0)
    scene.store.report_tenants({"a": TenantReport(0, 2, 0)}, epoch=1, number=2)
    await gateway.submit(request("s", branches=2, **limited))
    assert scene.inbox() == [b"r", b"t", b"u", b"s"]


@in_store_time
async def test_a_refused_request_leaves_nothing_behind(scene: Scene) -> None:
    gateway = await scene.serving()
    policy = TenantPolicy(tokens_per_minute=100)
    assert await exceeded(gateway, "r", tenant="a", branches=2, policy=TenantPolicy(max_requests=1)) == (
        ("max_requests", 0)
    )
    await gateway.submit(request("r", tenant="a", policy=policy, tokens=100))
    assert (await exceeded(gateway, "s", tenant="a", policy=policy, tokens=100))[0] == "tokens_per_minute"
    assert scene.inbox() == [b"r"]
    assert int((scene.store.get([KEYS.waiting])[0]) or 0) == 1
    await gateway.submit(request("s", tenant="a"))  # the id is free


@in_store_time
async def test_a_tenant_fills_its_share_of_the_queue_until_its_requests_run(scene: Scene) -> None:
    gateway = await scene.serving()
    half: dict[str, Any] = {"tenant": "a", "policy": TenantPolicy(queue_share=0.5), "max_queue": 5}
    await gateway.submit(request("r", branches=2, **half))
    assert await exceeded(gateway, "s", **half) == ("queue_share", 0)
    await gateway.submit(request("t", tenant="b", max_queue=5, branches=3))
    scene.store.report_tenants({"a": TenantReport(1, 0, 0)}, epoch=1, number=1)
    scene.store.count_departures(epoch=1, total=1)
    await gateway.submit(request("s", **half))
    tiny: dict[str, Any] = {"tenant": "c", "policy": TenantPolicy(queue_share=0.001)}
    await gateway.submit(request("u", **tiny))  # one place at least
    assert await exceeded(gateway, "v", **tiny) == ("queue_share", 0)


@in_store_time
async def test_the_tokens_of_a_minute_come_back_continuously(scene: Scene) -> None:
    gateway = await scene.serving()
    quota: dict[str, Any] = {"tenant": "a", "policy": TenantPolicy(tokens_per_minute=60_000)}  # 1 a ms
    await gateway.submit(request("r", tokens=59_990, **quota))
    name, retry_ms = await exceeded(gateway, "s", tokens=100, **quota)
    assert name == "tokens_per_minute"
    assert 0 < retry_ms <= 90
    await gateway.submit(request("t", tenant="b", policy=quota["policy"], tokens=60_000))
    await asyncio.sleep((retry_ms + 5) / 1000)
    await gateway.submit(request("s", tokens=100, **quota))


@in_store_time
async def test_outputs_count_once_they_are_reported_even_beyond_what_is_left(scene: Scene) -> None:
    gateway = await scene.serving()
    quota: dict[str, Any] = {"tenant": "a", "policy": TenantPolicy(tokens_per_minute=1000)}
    scene.store.report_tenants({"a": TenantReport(0, 0, 1.5 * MINUTE_MS)}, epoch=1, number=1)
    name, retry_ms = await exceeded(gateway, "r", tokens=10, **quota)
    assert name == "tokens_per_minute"
    assert 0.49 * MINUTE_MS <= retry_ms <= 0.51 * MINUTE_MS + 1


@in_store_time
async def test_a_request_that_is_larger_than_a_minute_needs_all_of_it(scene: Scene) -> None:
    gateway = await scene.serving()
    quota: dict[str, Any] = {"tenant": "a", "policy": TenantPolicy(tokens_per_minute=10)}
    await gateway.submit(request("r", tokens=30, **quota))
    name, retry_ms = await exceeded(gateway, "s", tokens=1, **quota)
    assert name == "tokens_per_minute"
    assert 2.05 * MINUTE_MS <= retry_ms <= 2.1 * MINUTE_MS + 1


@in_store_time
async def test_tokens_that_take_less_than_a_millisecond_of_the_quota_count_in_full(scene: Scene) -> None:
    """At a million tokens a minute a token takes 0.06 ms: eight are not free, nor do nine take one."""
    gateway = await scene.serving()
    quota: dict[str, Any] = {"tenant": "a", "policy": TenantPolicy(tokens_per_minute=10**6)}

    def full_at() -> float:
        return float(scene.store.get([KEYS.tokens("a")])[0] or 0)

    scene.store.report_tenants({"a": TenantReport(0, 0, MINUTE_MS / 2)}, epoch=1, number=1)
    before = full_at()
    for number in range(10):
        await gateway.submit(request(f"r{number}", tokens=5, **quota))
        scene.store.report_tenants({"a": TenantReport(0, 0, 0.3)}, epoch=1, number=2 + number)
    assert full_at() - before == pytest.approx(10 * (5 * 0.06 + 0.3), abs=0.1)


@in_store_time
async def test_a_report_counts_once_and_only_in_its_epoch(scene: Scene) -> None:
    gateway = await scene.serving()
    one: dict[str, Any] = {"tenant": "a", "policy": TenantPolicy(max_requests=2)}
    await gateway.submit(request("r", branches=2, **one))
    ended = {"a": TenantReport(1, 1, 0)}
    for _ in range(3):  # as if the answer had been lost
        scene.store.report_tenants(ended, epoch=1, number=1)
    await gateway.submit(request("s", **one))
    assert await exceeded(gateway, "t", **one) == ("max_requests", 0)
    scene.open_epoch()  # counts anew
    scene.store.report_tenants(ended, epoch=1, number=2)
    await gateway.submit(request("t", branches=2, **one))
    assert await exceeded(gateway, "u", **one) == ("max_requests", 0)
    scene.store.report_tenants(ended, epoch=2, number=1)
    await gateway.submit(request("u", **one))
