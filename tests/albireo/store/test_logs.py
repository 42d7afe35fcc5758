"""The contract of the logs, against a real server and with real second writers."""

from __future__ import annotations

import subprocess
import sys
from typing import cast

import pytest
import redis

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import SamplingParams, Submission
from albireo.store.connection import connect
from albireo.store.interface import EntryId, Fenced
from albireo.store.redis_store import RawEntry, RedisLog, RedisStore, read_streams
from albireo.store.scripts import END, SUBMIT
from albireo.v1 import log_pb2 as log
from tests.races.scene import wait_for

KEYS = Keys("m")

# Appends `<epoch>-<step>` for steps 1..n with its own payload; prints how many were accepted.
WRITER = """
import sys
from albireo.store.connection import connect
from albireo.store.interface import EntryId, Fenced
from albireo.store.redis_store import RedisLog
url, key, name, steps = sys.argv[1:]
log = RedisLog(connect(url), key, keep=100000)
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
    return connect(redis_url)


@pytest.mark.parametrize("key", [KEYS.plans, KEYS.results])
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
    ids = [EntryId.parse(entry_id) for entry_id, _ in cast("list[RawEntry]", client.xrange(key))]
    assert len(ids) == sum(accepted)
    assert ids == sorted(set(ids))
    assert ids[-1] == EntryId(1, steps)


def test_a_writer_of_a_closed_epoch_is_refused(client: redis.Redis) -> None:
    plans = RedisLog(client, KEYS.plans, keep=100)
    lease = RedisStore(client, KEYS).lease(KEYS.lease, b"me", ttl=10)
    assert lease.acquire()
    first, _ = RedisStore(client, KEYS).open_epoch(lease_value=b"me", group_incarnation="x")
    plans.append(EntryId(first, 1), b"p")
    second, _ = RedisStore(client, KEYS).open_epoch(lease_value=b"me", group_incarnation="x")
    assert second == first + 1
    with pytest.raises(Fenced):
        plans.append(EntryId(first, 2), b"p")
    for key in (KEYS.plans, KEYS.results):
        assert EntryId.parse(RedisLog(client, key).last()) == EntryId(second, 0)


def test_the_same_entry_again_is_not_a_second_writer(client: redis.Redis) -> None:
    """A retry after a lost answer finds its own entry."""
    results = RedisLog(client, KEYS.results, keep=100)
    results.append(EntryId(1, 1), b"same")
    results.append(EntryId(1, 1), b"same")
    with pytest.raises(Fenced):
        results.append(EntryId(1, 1), b"other")
    assert client.xlen(KEYS.results) == 1


def test_an_append_rides_out_a_server_that_drops_connections(client: redis.Redis) -> None:
    results = RedisLog(client, KEYS.results, keep=10000)
    for step in range(1, 51):
        client.client_kill_filter(_type="normal", skipme=True)
        results.append(EntryId(1, step), b"x")
    assert client.xlen(KEYS.results) == 50


def test_streams_are_trimmed(client: redis.Redis) -> None:
    plans = RedisLog(client, KEYS.plans, keep=100)
    for step in range(1, 2001):
        plans.append(EntryId(1, step), b"p" * 100)
    assert client.xlen(KEYS.plans) <= 300  # Redis trims whole nodes of about 100 entries


def test_opening_an_epoch_needs_the_lease(client: redis.Redis) -> None:
    with pytest.raises(Fenced):
        RedisStore(client, KEYS).open_epoch(lease_value=b"me", group_incarnation="")
    assert client.get(KEYS.epoch) is None


def test_an_epoch_begins_after_what_lies_in_the_inbox(client: redis.Redis) -> None:
    assert RedisStore(client, KEYS).lease(KEYS.lease, b"me", ttl=10).acquire()
    old = client.xadd(KEYS.inbox, {b"e": codec.cancellation_to_bytes("a")})
    client.set(KEYS.waiting, 7)
    _, begin = RedisStore(client, KEYS).open_epoch(lease_value=b"me", group_incarnation="x")
    assert begin.encode() == old
    assert client.get(KEYS.waiting) == b"0"
    entry = log.PlanEntry.FromString(read_streams(client, {KEYS.plans: "0-0"}, 0.001)[KEYS.plans][0][1])
    assert entry.open.group_incarnation == "x"


def test_a_lease_is_lost_by_expiry_and_taken_over(client: redis.Redis) -> None:
    first = RedisStore(client, KEYS).lease(KEYS.lease, b"1", ttl=0.2)
    second = RedisStore(client, KEYS).lease(KEYS.lease, b"2", ttl=5)
    assert first.acquire()
    assert not second.acquire()
    first.renew()
    wait_for(second.acquire, "the lease does not run out")
    with pytest.raises(Fenced):
        first.renew()
    first.release()  # not ours any more: nothing happens
    second.renew()


def test_a_lease_that_ran_out_is_taken_again_unless_the_logs_are_gone(client: redis.Redis) -> None:
    lease = RedisStore(client, KEYS).lease(KEYS.lease, b"1", ttl=10)
    assert lease.acquire()
    client.set(KEYS.epoch, 7)
    lease.renew()
    client.delete(KEYS.lease)  # as if Redis had stood still
    lease.renew()
    assert client.get(KEYS.lease) == b"1"
    client.flushall()
    with pytest.raises(Fenced):
        lease.renew()
    assert client.get(KEYS.lease) is None


def test_departures_count_once_however_often_they_are_told(client: redis.Redis) -> None:
    client.set(KEYS.epoch, 3)
    client.set(KEYS.waiting, 5)
    for total in (2, 2, 3, 1):
        RedisStore(client, KEYS).count_departures(epoch=3, total=total)
    assert client.get(KEYS.waiting) == b"2"
    RedisStore(client, KEYS).count_departures(epoch=2, total=5)  # of an epoch that is over
    assert client.get(KEYS.waiting) == b"2"


def submit(
    client: redis.Redis, request_id: str, digest: str = "d", bound: int = 2, n: int = 1, gateway: str = "g"
) -> str:
    entry = codec.submission_to_bytes(Submission(request_id, (1, 2), SamplingParams(max_tokens=1, seed=0)))
    keys = [
        KEYS.request(request_id),
        KEYS.inbox,
        KEYS.waiting,
        KEYS.epoch,
        KEYS.lease,
        KEYS.group,
        KEYS.serving,
        KEYS.gateway(gateway),
    ]
    cancellation = codec.cancellation_to_bytes(request_id)
    arguments = (digest, entry, str(bound), "60000", str(n), gateway, cancellation, KEYS.gateway(""))
    verdict = client.eval(SUBMIT, len(keys), *keys, *arguments)
    assert isinstance(verdict, list)
    return str(verdict[0].decode())


def test_submission_needs_scheduler_and_group_dedupes_and_bounds(client: redis.Redis) -> None:
    assert submit(client, "a") == "no_gateway"
    client.set(KEYS.gateway("g"), b"")
    assert submit(client, "a") == "no_scheduler"
    assert RedisStore(client, KEYS).lease(KEYS.lease, b"me", ttl=10).acquire()
    assert submit(client, "a") == "no_group"
    client.set(KEYS.group, b"g")
    RedisStore(client, KEYS).open_epoch(lease_value=b"me", group_incarnation="")
    assert submit(client, "a") == "no_group"  # announced, but not served yet
    RedisStore(client, KEYS).open_epoch(lease_value=b"me", group_incarnation="x")
    assert submit(client, "a") == "accepted"
    assert submit(client, "a") == "duplicate"
    assert submit(client, "a", digest="other") == "conflict"
    assert submit(client, "b") == "accepted"
    assert submit(client, "c") == "full"
    assert client.xlen(KEYS.inbox) == 2
    RedisStore(client, KEYS).open_epoch(lease_value=b"me", group_incarnation="x")
    assert submit(client, "a") == "accepted"  # the last epoch gave it up
    assert submit(client, "a") == "duplicate"
    assert submit(client, "b", n=3, bound=3) == "full"
    assert submit(client, "b", n=3, bound=4) == "accepted"
    assert client.get(KEYS.waiting) == b"4"


def test_entries_survive_the_wire() -> None:
    submission = Submission(
        "r",
        (0, 2**31),
        SamplingParams(
            max_tokens=5,
            seed=2**64 - 1,
            min_tokens=1,
            temperature=0.5,
            top_k=3,
            top_p=0.25,
            min_p=0.125,
            stop_ids=(4, 5),
            ignore_eos=True,
            logprobs=0,
            prompt_logprobs=20,
            typical_p=0.75,
            repetition_penalty=1.5,
            presence_penalty=-2.0,
            frequency_penalty=0.25,
            logit_bias=((3, -100.0), (2**31, 0.5)),
            allowed_ids=(7, 8),
            bad_ids=(9,),
        ),
        priority=-3,
        timeout_s=1.5,
        n=16,
    )
    assert codec.inbox_from_bytes(codec.submission_to_bytes(submission)) == submission
    assert codec.inbox_from_bytes(codec.cancellation_to_bytes("r")) == "r"


def test_an_epoch_follows_what_the_logs_hold_though_the_counter_is_gone(client: redis.Redis) -> None:
    """A Redis that lost its data, and a rank that goes on appending under the epoch it knows."""
    assert RedisStore(client, KEYS).lease(KEYS.lease, b"me", ttl=10).acquire()
    RedisLog(client, KEYS.results, keep=10).append(EntryId(500, 7), b"late")
    epoch, _ = RedisStore(client, KEYS).open_epoch(lease_value=b"me", group_incarnation="x")
    assert epoch == 501
    assert [RedisLog(client, key).last() for key in (KEYS.plans, KEYS.results)] == ["501-0", "501-0"]
    assert client.get(KEYS.epoch) == b"501"
    assert RedisStore(client, KEYS).open_epoch(lease_value=b"me", group_incarnation="x")[0] == 502


def test_an_id_is_free_again_where_its_gateway_died_before_the_end(client: redis.Redis) -> None:
    assert RedisStore(client, KEYS).lease(KEYS.lease, b"me", ttl=10).acquire()
    client.set(KEYS.group, b"g")
    RedisStore(client, KEYS).open_epoch(lease_value=b"me", group_incarnation="x")
    client.mset({KEYS.gateway("dead"): b"", KEYS.gateway("g"): b""})
    assert submit(client, "over", gateway="dead") == "accepted"
    client.eval(END, 1, KEYS.request("over"), codec.cancellation_to_bytes("over"))
    assert submit(client, "cut", gateway="dead") == "accepted"
    assert submit(client, "cut", digest="other", bound=9) == "conflict"
    client.delete(KEYS.gateway("dead"))
    assert submit(client, "over", bound=9) == "duplicate"
    assert submit(client, "cut", digest="other", bound=9) == "accepted"
    entries = read_streams(client, {KEYS.inbox: "0-0"}, 0.001)[KEYS.inbox]
    # The one that lost its gateway is cancelled before the new one comes.
    assert codec.inbox_from_bytes(entries[-2][1]) == "cut"
    assert submit(client, "cut", digest="other", bound=9) == "duplicate"
