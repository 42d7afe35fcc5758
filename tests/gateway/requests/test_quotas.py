"""What a client is answered whose tenant is over a quota, and how gateways follow changes of policies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import grpc
import pytest

from albireo.contract import tenants
from albireo.contract.keys import TENANT_POLICIES, Keys
from albireo.contract.plan import SamplingParams
from albireo.contract.tenants import TenantPolicy
from albireo.store.tenant_policies import policies_of
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from gateway.calls.refusal import RETRY_MS, Refusal
from gateway.models.cell import Cell
from gateway.requests.submission import Submitter
from gateway.requests.validation import ValidRequest
from gateway.store.memory_store import MemoryGatewayStore

KEYS = Keys("m")
MAX_QUEUE = 10


class MemoryCellStore:
    """The policies in the memory that the tiers share."""

    def __init__(self, space: Keyspace) -> None:
        self._space = space

    async def tenant_policies(self) -> dict[str, TenantPolicy]:
        return policies_of(self._space.hash(TENANT_POLICIES))

    async def models(self) -> set[str]:
        return {KEYS.model}

    async def close(self) -> None:
        """There is no connection."""


class Scene:
    """A gateway's submitter before a scheduler; policies as commands write them."""

    def __init__(self, clock: VirtualClock) -> None:
        self.space = Keyspace(clock)
        store = MemoryStore(self.space, KEYS)
        store.lease(KEYS.lease, b"scheduler", ttl=3600).acquire()
        store.open_epoch(lease_value=b"scheduler")
        self.gateway = MemoryGatewayStore(self.space, KEYS, "g")
        self.cell = Cell("redis://localhost", MemoryCellStore(self.space))
        self.hits = Counter[str]()
        self.submitter = Submitter(
            self.gateway,
            clock,
            max_queue=MAX_QUEUE,
            record_seconds=60,
            policy_of=self.cell.policy_of,
            hits=self.hits,
        )

    def set_policy(self, policy: TenantPolicy | None) -> None:
        policies = self.space.hash(TENANT_POLICIES)
        policies.pop(b"a", None)
        if policy is not None:
            policies[b"a"] = tenants.to_bytes(policy)

    async def submit(self, name: str, *, n: int = 1, prompt: int = 10) -> None:
        sampling = SamplingParams(max_tokens=1, seed=0)
        request = ValidRequest(name, tuple(range(prompt)), sampling, (), 0, n, "a")
        await self.submitter.submit(request, f"{name}@1", "digest", 60.0)

    async def refused(self, name: str, **options: Any) -> Refusal:
        with pytest.raises(Refusal) as found:
            await self.submit(name, **options)
        return found.value


def run(test: Any) -> None:
    """Runs ``test(scene)`` in virtual time, with the watch running."""

    async def body(scene: Scene) -> None:
        await scene.gateway.start_heartbeat(3600)
        task = asyncio.create_task(scene.cell.run())
        test_body: Coroutine[Any, Any, None] = test(scene)
        await test_body
        scene.cell.stop()
        await task

    with VirtualClock() as clock:
        clock.run(body(Scene(clock)))


@pytest.mark.parametrize(
    ("policy", "quota"),
    [
        (TenantPolicy(max_requests=2), 'quota: max_requests of tenant "a" (2 at once)'),
        (TenantPolicy(queue_share=0.2), 'quota: queue_share of tenant "a" (2 waiting)'),
    ],
)
def test_a_refusal_names_the_quota(policy: TenantPolicy, quota: str) -> None:
    async def test(scene: Scene) -> None:
        scene.set_policy(policy)
        await asyncio.sleep(1.5)
        await scene.submit("r", n=2)
        refusal = await scene.refused("s")
        assert (refusal.code, refusal.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, quota)
        assert refusal.retry_ms == RETRY_MS
        assert scene.hits.total() == 1
        # Never accepted: no retry is suggested.
        refusal = await scene.refused("s", n=3)
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.message == f"sampling.n: 3; {quota}"
        assert refusal.retry_ms is None

    run(test)


def test_a_refusal_by_tokens_says_when_there_are_enough() -> None:
    async def test(scene: Scene) -> None:
        scene.set_policy(TenantPolicy(tokens_per_minute=60))
        await asyncio.sleep(1.5)
        await scene.submit("r", prompt=60)
        refusal = await scene.refused("s", prompt=10)
        assert refusal.message == 'quota: tokens_per_minute of tenant "a" (60 a minute)'
        assert refusal.retry_ms == 10_000
        await asyncio.sleep(10)
        await scene.submit("s", prompt=10)

    run(test)


def test_a_quota_of_few_tokens_a_minute_does_not_bound_the_branches() -> None:
    async def test(scene: Scene) -> None:
        scene.set_policy(TenantPolicy(tokens_per_minute=2))
        await asyncio.sleep(1.5)
        await scene.submit("r", prompt=1)
        refusal = await scene.refused("s", n=3, prompt=2)
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await asyncio.sleep(30)
        await scene.submit("s", n=3, prompt=2)

    run(test)


def test_a_change_of_a_policy_counts_within_about_a_second() -> None:
    async def test(scene: Scene) -> None:
        for number in range(3):
            await scene.submit(f"r{number}")
        scene.set_policy(TenantPolicy(max_requests=3))
        await asyncio.sleep(1.1)
        assert "max_requests" in (await scene.refused("s")).message
        scene.set_policy(None)
        await asyncio.sleep(1.1)
        await scene.submit("s")

    run(test)
