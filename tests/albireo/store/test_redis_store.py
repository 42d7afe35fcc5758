"""What only a real server shows: two processes that write, and connections that break."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import redis
from redis.client import Pipeline

from albireo.store import redis_store
from albireo.store.interface import EntryId, NewEntry
from albireo.store.redis_store import RedisStore
from tests.albireo.store.conftest import KEYS, PLANS, RESULTS, open_logs

# Appends `1-<step>` for steps 1..n with its own payload; prints how many were accepted.
WRITER = """
import sys
from albireo.contract.keys import Keys
from albireo.store.interface import EntryId, Fenced
from albireo.store import redis_store
from albireo.store.redis_store import RedisStore
url, key, name, steps = sys.argv[1:]
log = RedisStore.open(url, Keys("m")).log(key, keep=100000)
accepted = 0
for step in range(1, int(steps) + 1):
    try:
        log.append(EntryId(1, step), f"{name} {step}".encode())
        accepted += 1
    except Fenced:
        pass
print(accepted)
"""


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    """With the logs of a group, opened in epoch 1."""
    found = RedisStore.open(redis_url, KEYS)
    open_logs(found)
    yield found
    found.close()


@pytest.mark.parametrize("key", [PLANS, RESULTS])
@pytest.mark.usefixtures("store")
def test_of_two_writers_redis_takes_each_step_from_one(redis_url: str, client: redis.Redis, key: str) -> None:
    steps = 2000
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, redis_url, key, name, str(steps)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    accepted = [int(writer.communicate(timeout=60)[0]) for writer in writers]
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(key, min="1-1"))
    ids = [EntryId.parse(entry_id) for entry_id, _ in entries]
    assert len(ids) == sum(accepted)
    assert ids == sorted(set(ids))
    assert ids[-1] == EntryId(1, steps)


def test_an_append_is_retried_when_the_server_drops_connections(
    store: RedisStore, client: redis.Redis
) -> None:
    results = store.log(RESULTS, keep=10000)
    for step in range(1, 51):
        client.client_kill_filter(_type="normal", skipme=True)
        results.append(EntryId(1, step), b"x")
    assert client.xlen(RESULTS) == 51


def test_appends_to_several_logs_are_retried_when_the_server_drops_connections_or_scripts(
    store: RedisStore, client: redis.Redis
) -> None:
    for step in range(1, 51):
        if step % 2:
            client.client_kill_filter(_type="normal", skipme=True)
        else:
            client.script_flush()
        store.append_all([NewEntry(key, EntryId(1, step), b"x") for key in (PLANS, RESULTS)], keep=10000)
    assert client.xlen(PLANS) == client.xlen(RESULTS) == 51


class LosesPipelines(redis.Redis):
    """Its pipelines are carried out, but their answers do not come."""

    lost = 0

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        found = super().pipeline(transaction, shard_hint)
        execute = found.execute

        def lose(raise_on_error: bool = True) -> list[object]:
            execute(raise_on_error)
            self.lost += 1
            raise redis.ConnectionError("the answer was lost")

        found.execute = lose  # type: ignore[method-assign]
        return found


def test_appends_to_several_logs_whose_answers_are_lost_are_done_once(
    store: RedisStore, redis_url: str, client: redis.Redis
) -> None:
    with LosesPipelines.from_url(redis_url) as losing:
        for step in (1, 2):
            entries = [NewEntry(key, EntryId(1, step), b"x") for key in (PLANS, RESULTS)]
            RedisStore(losing, KEYS).append_all(entries, keep=100)
        assert losing.lost == 2
    assert client.xlen(PLANS) == client.xlen(RESULTS) == 3


class ClockOfRedis(redis.Redis):
    """Answers TIME with ``seconds``, after ``delay`` seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 1000
        self.delay = 0.0

    def time(self, **_: Any) -> tuple[int, int]:
        time.sleep(self.delay)
        return self.seconds, 0


def test_a_slow_answer_does_not_change_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "SYNC_SECONDS", 0.0)
    monkeypatch.setattr(redis_store, "SLOW_SECONDS", 0.01)
    clock = ClockOfRedis()
    store = RedisStore(clock, KEYS)
    assert store.time() == pytest.approx(1000, abs=0.05)
    clock.seconds, clock.delay = 1500, 0.02
    assert store.time() == pytest.approx(1000, abs=0.1)
    clock.delay = 0.0
    assert store.time() == pytest.approx(1500, abs=0.05)


def test_the_first_answer_counts_however_slow_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "SLOW_SECONDS", 0.01)
    clock = ClockOfRedis()
    clock.delay = 0.02
    assert RedisStore(clock, KEYS).time() == pytest.approx(1000, abs=0.05)
