"""Random operations on Redis and on memory: every answer and every key is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from albireo.store.interface import (
    LAST_STEP,
    EntryId,
    Fenced,
    GroupOpening,
    Lease,
    NewEntry,
    Store,
    TenantReport,
)
from albireo.store.redis_store import RedisStore
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from albireo.virtual.store import MemoryStore
from tests.albireo.store.conftest import KEYS
from tests.albireo.store.scripted import MemoryScripts, RedisScripts

REQUESTS = st.sampled_from(["a", "b"])
NAMES = st.sampled_from(["1", "2"])
GATEWAYS = st.sampled_from(["g", "h"])
OWNERS = st.sampled_from([b"me", b"you"])
GROUPS = st.sampled_from(["x", "y"])
GROUP_LOGS = [key(group) for group in ("x", "y") for key in (KEYS.plans, KEYS.results)]
LOGS = [KEYS.notices, *GROUP_LOGS]
LEASES = st.sampled_from([KEYS.lease, KEYS.group("x"), KEYS.group("y")])
EXPIRING = [KEYS.lease, KEYS.group("x"), KEYS.group("y"), KEYS.gateway("g"), KEYS.gateway("h"), KEYS.load]
VALUES = [*EXPIRING, KEYS.epoch, KEYS.served_model, KEYS.waiting, KEYS.departed]
STEPS = st.sampled_from([0, 1, 2, 3, LAST_STEP])
TTL = 600  # nothing expires by time: `expire` deletes


class Stores(RuleBasedStateMachine):
    """``self.both(f)`` calls ``f`` for each store, and compares the answers."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        client = self.client
        client.flushall()
        self.clock = VirtualClock()
        space = Keyspace(self.clock)
        self.stores: list[Store] = [RedisStore(client, KEYS), MemoryStore(space, KEYS)]
        self.scripts = [RedisScripts(client, KEYS), MemoryScripts(space, KEYS)]
        self.leases: list[dict[tuple[str, bytes], Lease]] = [{}, {}]

    def teardown(self) -> None:
        self.clock.close()

    @initialize(serving=st.booleans())
    def begin(self, serving: bool) -> None:
        """Only where all this comes together a submission is accepted: random steps alone never get there."""
        if serving:
            self.use_lease(KEYS.lease, b"me", "acquire")
            for key in (KEYS.group("x"), KEYS.gateway("g"), KEYS.gateway("h")):
                self.announce(key, b"me")
            self.open_epoch(b"me")
            self.join_or_leave("x", "register")
            self.open_group("x", 1, 1, b"me")

    def both(self, call: Callable[..., Any], targets: list[Any] | None = None) -> None:
        answers = [answer(call, target) for target in (self.stores if targets is None else targets)]
        assert answers[0] == answers[1]

    @rule(key=LEASES, owner=OWNERS, what=st.sampled_from(["acquire", "acquire", "renew", "release"]))
    def use_lease(self, key: str, owner: bytes, what: str) -> None:
        for store, leases in zip(self.stores, self.leases, strict=True):
            leases.setdefault((key, owner), store.lease(key, owner, ttl=TTL))
        self.both(lambda leases: getattr(leases[key, owner], what)(), self.leases)

    @rule(key=st.sampled_from(EXPIRING[1:]), value=OWNERS)
    def announce(self, key: str, value: bytes) -> None:
        self.both(lambda store: store.announce(key, value, ttl=TTL))

    @rule(key=st.sampled_from(EXPIRING))
    def expire(self, key: str) -> None:
        self.both(lambda scripts: scripts.delete(key), self.scripts)

    @rule(key=st.sampled_from([KEYS.served_model, KEYS.load]), value=OWNERS)
    def put(self, key: str, value: bytes) -> None:
        self.both(lambda store: store.put(key, value))

    @rule(group=GROUPS, what=st.sampled_from(["register", "register", "leave"]))
    def join_or_leave(self, group: str, what: str) -> None:
        self.both(lambda store: getattr(store, what)(group))

    @rule(group=GROUPS, epoch=st.integers(1, 3), notice=st.integers(1, 4), owner=OWNERS)
    def open_group(self, group: str, epoch: int, notice: int, owner: bytes) -> None:
        opening = GroupOpening(epoch, group, "g1")
        self.both(lambda store: store.open_group(opening, notice=notice, lease_value=owner))

    @rule(group=GROUPS, epoch=st.integers(1, 3), notice=st.integers(1, 4), owner=OWNERS)
    def close_group(self, group: str, epoch: int, notice: int, owner: bytes) -> None:
        opening = GroupOpening(epoch, group, "g1")
        self.both(lambda store: store.close_group(opening, "dead", notice=notice, lease_value=owner))

    @rule(key=st.sampled_from(GROUP_LOGS))
    def delete_log(self, key: str) -> None:
        self.both(lambda scripts: scripts.delete_log(key), self.scripts)

    @rule(owner=OWNERS)
    def open_epoch(self, owner: bytes) -> None:
        # The inbox id after which it begins is a time: compared as the number of entries before it.
        def opened(store: Store) -> tuple[int, int]:
            epoch, begin = store.open_epoch(lease_value=owner)
            entries = store.log(KEYS.inbox).read("0-0", 0)
            return epoch, sum(EntryId.parse(entry_id) <= EntryId.parse(begin) for entry_id, _ in entries)

        self.both(opened)

    @rule(key=st.sampled_from(LOGS), epoch=st.integers(1, 4), step=STEPS, data=OWNERS)
    def append(self, key: str, epoch: int, step: int, data: bytes) -> None:
        self.both(lambda store: store.log(key, keep=1000).append(EntryId(epoch, step), data))

    @rule(keys=st.sets(st.sampled_from(LOGS)), epoch=st.integers(1, 4), step=STEPS, data=OWNERS)
    def append_all(self, keys: set[str], epoch: int, step: int, data: bytes) -> None:
        entries = [NewEntry(key, EntryId(epoch, step), data) for key in sorted(keys)]
        self.both(lambda store: store.append_all(entries, keep=1000))

    @rule(key=st.sampled_from(LOGS), epoch=st.integers(1, 4), step=st.integers(0, 3))
    def trim(self, key: str, epoch: int, step: int) -> None:
        def trimmed(store: Store) -> int:
            # A reader trims before an entry that it has read: the newest one stays.
            newest = EntryId.parse(store.log(key).last())
            return store.log(key).trim(str(min(EntryId(epoch, step), newest)))

        self.both(trimmed)

    @rule(key=st.sampled_from(LOGS), epoch=st.integers(0, 4), step=STEPS)
    def read(self, key: str, epoch: int, step: int) -> None:
        self.both(lambda store: store.log(key).read(f"{epoch}-{step}", 0))

    @rule(epoch=st.integers(1, 3), total=st.integers(0, 4))
    def count_departures(self, epoch: int, total: int) -> None:
        self.both(lambda store: store.count_departures(epoch=epoch, total=total))

    @rule(epoch=st.integers(1, 3), number=st.integers(1, 4), counts=st.tuples(*[st.integers(0, 2)] * 2))
    def report_tenants(self, epoch: int, number: int, counts: tuple[int, int]) -> None:
        reports = {"t": TenantReport(*counts, 0.0)}
        self.both(lambda store: store.report_tenants(reports, epoch=epoch, number=number))

    @rule(request=REQUESTS, name=NAMES, digest=NAMES, n=st.integers(1, 3), gateway=GATEWAYS)
    def submit(self, request: str, name: str, digest: str, n: int, gateway: str) -> None:
        options: dict[str, Any] = {"name": f"{request}@{name}", "digest": digest, "n": n, "gateway": gateway}
        options["most"] = 2 * n  # other than for the queue
        self.both(lambda scripts: scripts.submit(request, bound=6, **options), self.scripts)

    @rule(request=REQUESTS, name=NAMES, what=st.sampled_from(["end", "withdraw"]))
    def conclude(self, request: str, name: str, what: str) -> None:
        self.both(lambda scripts: getattr(scripts, what)(request, name=f"{request}@{name}"), self.scripts)

    @rule(request=REQUESTS)
    def cancel(self, request: str) -> None:
        self.both(lambda scripts: scripts.cancel(request), self.scripts)

    @rule(request=REQUESTS)
    def drop(self, request: str) -> None:
        self.both(lambda scripts: scripts.drop(request), self.scripts)

    @invariant()
    def keys_are_the_same(self) -> None:
        self.both(lambda store: store.get(VALUES))
        self.both(lambda store: store.read(dict.fromkeys(LOGS, "0-0"), 0))
        self.both(lambda store: [store.log(key).last() for key in LOGS])
        self.both(lambda store: store.groups())
        self.both(lambda scripts: scripts.members(KEYS.serving), self.scripts)
        self.both(lambda scripts: scripts.hash(KEYS.tenants), self.scripts)
        self.both(lambda scripts: [scripts.seconds_left(key) < TTL for key in GROUP_LOGS], self.scripts)
        self.both(lambda store: [data for _, data in store.log(KEYS.inbox).read("0-0", 0)])


def answer(call: Callable[[Any], Any], target: Any) -> Any:
    try:
        return call(target)
    except Fenced:
        return Fenced


@pytest.mark.timeout(300)  # seconds when it passes; to shrink a failure takes a minute
def test_redis_and_memory_give_the_same_answers(redis_url: str) -> None:
    Stores.client = client = redis.Redis.from_url(redis_url)
    run_state_machine_as_test(
        Stores,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    client.close()
