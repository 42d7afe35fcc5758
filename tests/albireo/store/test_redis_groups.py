"""What only a real server shows of groups: lost answers, the memory limit, two schedulers at once."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from albireo.contract.keys import MODELS
from albireo.local.redis_server import LocalRedis
from albireo.store.interface import LAST_STEP, EntryId, Fenced, GroupOpening, NewEntry
from albireo.store.redis_errors import Trouble, trouble
from albireo.store.redis_store import RedisStore
from albireo.v1 import log_pb2 as log
from tests.albireo.store.conftest import KEYS, ME, PLANS, RESULTS, open_logs
from tests.albireo.store.scripted import RedisScripts

RawEntry = tuple[bytes, dict[bytes, bytes]]


class Forgetful(redis.Redis):
    """A connection that breaks after the server has carried out the next script, before it answers."""

    loses = False

    def execute_command(self, *args: Any, **options: Any) -> Any:
        answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if self.loses and args[0] in ("EVAL", "EVALSHA"):
            self.loses = False
            raise RedisConnectionError("the answer was lost")
        return answer


@pytest.fixture
def client(redis_url: str) -> Iterator[Forgetful]:
    with Forgetful.from_url(redis_url, protocol=2) as found:
        yield found


@pytest.fixture
def store(client: Forgetful) -> RedisStore:
    return RedisStore(client, KEYS)


def entries_of(client: redis.Redis, key: str) -> list[str]:
    return [entry_id.decode() for entry_id, _ in cast("list[RawEntry]", client.xrange(key))]


def test_what_lost_its_answer_is_done_once(client: Forgetful, store: RedisStore) -> None:
    opening = open_logs(store)
    other = opening._replace(group="y", name="g2")
    client.loses = True
    store.register("y")
    client.loses = True
    store.open_group(other, notice=2, lease_value=ME)
    client.loses = True
    store.log(PLANS, keep=100).append(EntryId(1, 1), b"plan")
    client.loses = True
    store.close_group(opening, "dead", notice=3, lease_value=ME)
    client.loses = True
    store.leave("y")
    assert not client.loses
    assert entries_of(client, KEYS.notices) == ["1-0", "1-1", "1-2", "1-3"]
    assert entries_of(client, PLANS) == ["1-0", "1-1", f"1-{LAST_STEP}"]
    assert entries_of(client, KEYS.results("y")) == ["1-0"]
    assert client.smembers(KEYS.serving) == {b"y"}


def test_an_epoch_whose_answer_was_lost_is_followed_by_the_next(client: Forgetful, store: RedisStore) -> None:
    open_logs(store)
    client.loses = True
    assert store.open_epoch(lease_value=ME)[0] == 3
    assert not client.loses
    assert entries_of(client, KEYS.notices) == ["1-0", "1-1", "2-0", "3-0"]


def test_a_change_whose_answer_was_lost_counts_though_another_leads_by_now(
    client: Forgetful, store: RedisStore
) -> None:
    opening = open_logs(store)
    client.set(KEYS.lease, "you")
    store.open_group(opening, notice=1, lease_value=ME)  # as after a lost answer
    with pytest.raises(Fenced):
        store.close_group(opening, "dead", notice=2, lease_value=ME)


def test_at_the_memory_limit_groups_come_and_go_and_epochs_open(tmp_path_factory: Any) -> None:
    server = LocalRedis(tmp_path_factory.mktemp("store"))
    try:
        with redis.Redis.from_url(server.url, protocol=2) as client:
            store = RedisStore(client, KEYS)
            opening = open_logs(store)
            store.announce(KEYS.gateway("g"), b"", ttl=60)
            client.config_set("maxmemory", "100kb")
            with pytest.raises(RedisError) as raised:
                RedisScripts(client, KEYS).submit("r")
            assert trouble(raised.value) is Trouble.FULL
            store.announce(KEYS.group("y"), b"info", ttl=60)
            store.register("y")
            store.open_group(opening._replace(group="y"), notice=2, lease_value=ME)
            store.log(KEYS.plans("y"), keep=100).append(EntryId(1, 1), b"plan")
            plans = [NewEntry(KEYS.plans(group), EntryId(1, 2), b"plan") for group in ("x", "y")]
            store.append_all(plans, keep=100)
            store.put(KEYS.served_model, b"model")
            store.close_group(opening, "dead", notice=3, lease_value=ME)
            store.leave("y")
            assert store.open_epoch(lease_value=ME)[0] == 2
            assert entries_of(client, KEYS.plans("y")) == ["1-0", "1-1", "1-2"]
    finally:
        server.stop()


def lead_now_and_then(store: RedisStore, name: str, until: float, stale: list[int]) -> None:
    """One of two schedulers: it leads when it gets the lease, and pauses for longer than the lease lasts."""
    rng, value = random.Random(name), name.encode()
    lease = store.lease(KEYS.lease, value, ttl=0.02)
    while time.monotonic() < until:
        if not lease.acquire():
            time.sleep(0.002)
            continue
        try:
            epoch, _ = store.open_epoch(lease_value=value)
            for notice, group in enumerate(store.groups(), 1):
                time.sleep(rng.choice([0, 0.005, 0.03]))
                store.open_group(GroupOpening(epoch, group, name), notice=notice, lease_value=value)
        except Fenced:
            stale.append(1)


def test_two_schedulers_that_lead_in_turn_leave_whole_openings(redis_url: str, client: redis.Redis) -> None:
    stores = [RedisStore.open(redis_url, KEYS) for _ in range(2)]
    for group in ("x", "y", "z"):
        stores[0].register(group)
    stale: list[int] = []
    until = time.monotonic() + 1.0
    schedulers = [
        threading.Thread(target=lead_now_and_then, args=(store, name, until, stale))
        for store, name in zip(stores, ("a", "b"), strict=True)
    ]
    for scheduler in schedulers:
        scheduler.start()
    for scheduler in schedulers:
        scheduler.join(20)
    for store in stores:
        store.close()
    notices = cast("list[RawEntry]", client.xrange(KEYS.notices))
    found = [log.Notice.FromString(fields[b"e"]) for _, fields in notices]
    epochs = [notice.open.epoch for notice in found if notice.WhichOneof("entry") == "open"]
    assert epochs == list(range(1, len(epochs) + 1))
    openings = [notice.group_open for notice in found if notice.WhichOneof("entry") == "group_open"]
    for group in ("x", "y", "z"):
        opened = [f"{opening.epoch}-0" for opening in openings if opening.group == group]
        assert entries_of(client, KEYS.plans(group)) == entries_of(client, KEYS.results(group)) == opened
    for _, of_epoch in itertools.groupby(openings, key=lambda opening: opening.epoch):
        assert len({opening.name for opening in of_epoch}) == 1  # one scheduler an epoch
    assert stale  # the race was run
    assert openings


def test_no_key_of_a_group_that_was_closed_stays(client: redis.Redis, store: RedisStore) -> None:
    opening = open_logs(store)
    store.log(RESULTS, keep=100).append(EntryId(1, 1), b"r")
    store.close_group(opening, "dead", notice=2, lease_value=ME)
    keys = cast("list[bytes]", client.keys("*"))
    left = {key.decode() for key in keys if client.ttl(key) == -1}
    assert left == {KEYS.epoch, KEYS.waiting, KEYS.departed, KEYS.notices, MODELS}
