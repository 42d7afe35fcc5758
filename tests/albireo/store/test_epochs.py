"""Epochs and the count of those that wait, in Redis and in memory."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from albireo.store.interface import EntryId, Fenced, Store
from albireo.v1 import log_pb2 as log
from albireo.virtual.keyspace import RefusedId
from tests.albireo.store.conftest import KEYS, Backend


def lead(store: Store) -> None:
    """Takes the lease as ``me``."""
    assert store.lease(KEYS.lease, b"me", ttl=60).acquire()


def test_an_epoch_opens_in_both_logs(store: Store) -> None:
    lead(store)
    assert store.open_epoch(lease_value=b"me", group_incarnation="x") == (1, "0-0")
    [(plan_id, plan)] = store.log(KEYS.plans).read("0-0", 0)
    [(result_id, result)] = store.log(KEYS.results).read("0-0", 0)
    assert plan_id == result_id == b"1-0"
    opening = log.EpochOpen(epoch=1, group_incarnation="x")
    assert log.PlanEntry.FromString(plan).open == opening
    assert log.ResultEntry.FromString(result).open == opening
    assert store.get([KEYS.epoch, KEYS.serving]) == [b"1", b"1"]
    assert store.open_epoch(lease_value=b"me", group_incarnation="") == (2, "0-0")
    assert store.get([KEYS.epoch, KEYS.serving]) == [b"2", b"0"]


def test_a_writer_of_a_closed_epoch_is_refused(store: Store) -> None:
    lead(store)
    plans = store.log(KEYS.plans, keep=100)
    first, _ = store.open_epoch(lease_value=b"me", group_incarnation="x")
    plans.append(EntryId(first, 1), b"p")
    second, _ = store.open_epoch(lease_value=b"me", group_incarnation="x")
    assert second == first + 1
    with pytest.raises(Fenced):
        plans.append(EntryId(first, 2), b"p")
    for key in (KEYS.plans, KEYS.results):
        assert EntryId.parse(store.log(key).last()) == EntryId(second, 0)


def test_opening_an_epoch_needs_the_lease(store: Store) -> None:
    with pytest.raises(Fenced):
        store.open_epoch(lease_value=b"me", group_incarnation="")
    lead(store)
    with pytest.raises(Fenced):
        store.open_epoch(lease_value=b"you", group_incarnation="")
    assert store.get([KEYS.epoch]) == [None]
    assert store.log(KEYS.plans).last() == "0-0"


def test_an_epoch_begins_after_what_is_in_the_inbox(backend: Backend, store: Store) -> None:
    lead(store)
    backend.scripts.drop("a")
    [(old, _)] = store.log(KEYS.inbox).read("0-0", 0)
    assert store.open_epoch(lease_value=b"me", group_incarnation="x") == (1, old.decode())


def test_an_epoch_follows_what_the_logs_hold_though_the_counter_is_gone(store: Store) -> None:
    """A store that lost its data, and a rank that goes on appending under the epoch it knows."""
    lead(store)
    store.log(KEYS.results, keep=10).append(EntryId(500, 7), b"late")
    assert store.open_epoch(lease_value=b"me", group_incarnation="x")[0] == 501
    assert [store.log(key).last() for key in (KEYS.plans, KEYS.results)] == ["501-0", "501-0"]
    assert store.get([KEYS.epoch]) == [b"501"]
    assert store.open_epoch(lease_value=b"me", group_incarnation="x")[0] == 502


def test_no_epoch_opens_where_a_log_is_trimmed_empty_and_the_counter_is_gone(
    backend: Backend, store: Store
) -> None:
    lead(store)
    results = store.log(KEYS.results, keep=10)
    results.append(EntryId(500, 7), b"late")
    assert results.trim("501-0") == 0
    with pytest.raises((ResponseError, RefusedId)):
        store.open_epoch(lease_value=b"me", group_incarnation="x")
    assert results.last() == "0-0"


def test_counting_departures_is_idempotent(backend: Backend, store: Store) -> None:
    lead(store)
    store.announce(KEYS.group, b"group", ttl=60)
    store.announce(KEYS.gateway("g"), b"", ttl=60)
    epoch, _ = store.open_epoch(lease_value=b"me", group_incarnation="x")
    assert backend.scripts.submit("r", n=5, bound=9) == ("accepted", epoch)
    for total in (2, 2, 3, 1):
        store.count_departures(epoch=epoch, total=total)
    assert store.get([KEYS.waiting]) == [b"2"]
    store.count_departures(epoch=epoch - 1, total=9)  # of an epoch that is over
    assert store.get([KEYS.waiting]) == [b"2"]
    store.count_departures(epoch=epoch, total=9)  # never below zero
    assert store.get([KEYS.waiting]) == [b"0"]


def test_a_new_epoch_counts_from_zero(backend: Backend, store: Store) -> None:
    lead(store)
    store.announce(KEYS.group, b"group", ttl=60)
    store.announce(KEYS.gateway("g"), b"", ttl=60)
    store.open_epoch(lease_value=b"me", group_incarnation="x")
    backend.scripts.submit("r", n=5, bound=9)
    store.count_departures(epoch=1, total=1)
    epoch, _ = store.open_epoch(lease_value=b"me", group_incarnation="x")
    assert store.get([KEYS.waiting]) == [b"0"]
    backend.scripts.submit("s", n=2, bound=9)
    store.count_departures(epoch=epoch, total=1)
    assert store.get([KEYS.waiting]) == [b"1"]
