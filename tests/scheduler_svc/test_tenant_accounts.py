"""What the scheduler reports of tenants' requests, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from albireo.contract import tenants
from albireo.contract.keys import TENANT_POLICIES, Keys
from albireo.contract.plan import Finish, GroupShape, SamplingParams, StepResult, Submission
from albireo.contract.tenants import TenantPolicy
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from scheduler_svc.core import Limits, SchedulerCore
from scheduler_svc.tenant_accounts import READ_SECONDS, REPORT_SECONDS, TenantAccounts

KEYS = Keys("m")


class Scene(NamedTuple):
    clock: VirtualClock
    space: Keyspace
    core: SchedulerCore
    accounts: TenantAccounts
    served: Counter[str]  # service by tenant

    def set_policy(self, tenant: str, policy: TenantPolicy) -> None:
        self.space.hash(TENANT_POLICIES)[tenant.encode()] = tenants.to_bytes(policy)
        self.clock.sleep(READ_SECONDS)
        self.accounts.look()

    def accept(self, name: str, tenant: str, *, n: int = 1) -> Submission:
        """As a gateway's submission counts."""
        counts = self.space.hash(KEYS.tenants)
        for field in (f"live:{tenant}".encode(), f"waiting:{tenant}".encode()):
            counts[field] = b"%d" % (int(counts.get(field, 0)) + n)
        return Submission(name, (1, 2), SamplingParams(max_tokens=4, seed=0), n=n, tenant=tenant)

    def counts(self) -> dict[str, int]:
        found = self.space.hash(KEYS.tenants)
        return {name.decode(): int(value) for name, value in found.items() if name != b"reports"}


@pytest.fixture
def scene() -> Iterator[Scene]:
    with VirtualClock() as clock:
        space = Keyspace(clock)
        store = MemoryStore(space, KEYS)
        store.lease(KEYS.lease, b"s", ttl=3600).acquire()
        epoch, _ = store.open_epoch(lease_value=b"s")
        core = SchedulerCore(Limits(max_num_seqs=2), epoch=epoch, salt=b"")
        core.join("g", GroupShape(16, 2, 64))
        served = Counter[str]()

        def charge(tenant: str, service: float) -> None:
            served[tenant] += int(service)

        yield Scene(clock, space, core, TenantAccounts(epoch, core, store, clock, served=charge), served)


def test_what_ends_is_counted_off_a_few_times_a_second(scene: Scene) -> None:
    scene.accounts.report()
    for name in ("r", "s"):
        scene.core.submit(scene.accept(name, "a"), 0.0)
    scene.core.cancel("r")
    scene.core.take_ended()
    scene.accounts.report()
    assert scene.counts() == {"live:a": 1, "waiting:a": 1}
    scene.core.cancel("s")
    scene.core.take_ended()
    scene.accounts.report()  # too soon
    assert scene.counts() == {"live:a": 1, "waiting:a": 1}
    scene.clock.sleep(REPORT_SECONDS)
    scene.accounts.report()
    assert scene.counts() == {}


def test_where_a_quota_depends_on_it_an_end_is_reported_at_once(scene: Scene) -> None:
    scene.set_policy("a", TenantPolicy(max_requests=4))
    for name in ("r", "s"):
        scene.core.submit(scene.accept(name, "a", n=2), 0.0)
        scene.core.cancel(name)
        scene.core.take_ended()
        scene.accounts.report()
        assert scene.counts() == {}


def test_a_refused_submission_is_counted_off_too(scene: Scene) -> None:
    scene.core.refuse(scene.accept("r", "a", n=3))
    scene.accounts.report()
    assert scene.counts() == {}


def test_an_admitted_request_leaves_the_queue_and_its_outputs_use_the_quota_of_tokens(scene: Scene) -> None:
    scene.set_policy("a", TenantPolicy(tokens_per_minute=60, queue_share=0.5))  # a token a second
    scene.core.submit(scene.accept("r", "a"), 0.0)
    scene.core.place()
    group = scene.core.groups["g"]
    plan = group.plan(0.0)
    assert plan is not None
    scene.accounts.report()
    assert scene.counts() == {"live:a": 1}
    [admission] = plan.admissions
    for step in range(1, 5):
        finish = Finish.LENGTH if step == 4 else Finish.NONE
        group.settle(StepResult(plan.epoch, step, (0,), (admission.incarnation,), (7,), (int(finish),)))
        group.plan(0.0)
    scene.clock.sleep(REPORT_SECONDS)
    scene.accounts.report()
    assert scene.counts() == {}
    full_at = float(scene.space.get(KEYS.tokens("a")) or 0)
    assert scene.served == {"a": 2 * 1 + 4 * 2}  # weighted: a prompt of 2, 4 outputs
    assert full_at - scene.clock.time_ns() / 1e6 == pytest.approx(4000, abs=2)


def test_weights_reach_the_queue_within_a_second(scene: Scene) -> None:
    scene.set_policy("b", TenantPolicy(weight=4.0))
    for number in range(6):
        for tenant in ("a", "b"):
            scene.core.submit(scene.accept(f"{tenant}{number}", tenant), 0.0)
    order = [request.submission.tenant for request in scene.core._requests.queue.in_order()]
    assert order[:7] == ["a", "b", "b", "b", "b", "a", "b"]
