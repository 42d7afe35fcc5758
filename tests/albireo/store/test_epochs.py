"""Epochs and the count of those that wait, in Redis and in memory."""

from __future__ import annotations

import pytest

from albireo.store.interface import EntryId, Fenced, Store
from albireo.v1 import log_pb2 as log
from tests.albireo.store.conftest import KEYS, ME, PLANS, RESULTS, Backend, lead, open_logs


def test_an_epoch_opens_in_the_notices(store: Store) -> None:
    lead(store)
    assert store.open_epoch(lease_value=ME) == (1, "0-0")
    [(entry_id, data)] = store.log(KEYS.notices).read("0-0", 0)
    assert entry_id == b"1-0"
    assert log.Notice.FromString(data) == log.Notice(open=log.EpochOpen(epoch=1))
    assert store.get([KEYS.epoch, KEYS.waiting, KEYS.departed]) == [b"1", b"0", b"0"]
    assert store.open_epoch(lease_value=ME) == (2, "0-0")
    assert store.get([KEYS.epoch]) == [b"2"]
    assert store.log(KEYS.notices).last() == "2-0"


def test_no_group_serves_in_a_new_epoch(backend: Backend, store: Store) -> None:
    open_logs(store)
    assert backend.scripts.members(KEYS.serving) == {"x"}
    store.open_epoch(lease_value=ME)
    assert backend.scripts.members(KEYS.serving) == set()
    assert backend.scripts.members(KEYS.groups) == {"x"}


def test_a_writer_of_an_earlier_epoch_is_refused(store: Store) -> None:
    first = open_logs(store)
    notices, plans = store.log(KEYS.notices, keep=100), store.log(PLANS, keep=100)
    notices.append(EntryId(first.epoch, 2), b"n")
    plans.append(EntryId(first.epoch, 1), b"p")
    second = open_logs(store)
    assert second.epoch == first.epoch + 1
    for writer in (notices, plans, store.log(RESULTS, keep=100)):
        with pytest.raises(Fenced):
            writer.append(EntryId(first.epoch, 3), b"late")
    for key in (PLANS, RESULTS):
        assert EntryId.parse(store.log(key).last()) == EntryId(second.epoch, 0)


def test_opening_an_epoch_needs_the_lease(store: Store) -> None:
    with pytest.raises(Fenced):
        store.open_epoch(lease_value=ME)
    lead(store)
    with pytest.raises(Fenced):
        store.open_epoch(lease_value=b"you")
    assert store.get([KEYS.epoch]) == [None]
    assert store.log(KEYS.notices).last() == "0-0"


def test_an_epoch_begins_after_what_is_in_the_inbox(backend: Backend, store: Store) -> None:
    lead(store)
    backend.scripts.drop("a")
    [(old, _)] = store.log(KEYS.inbox).read("0-0", 0)
    assert store.open_epoch(lease_value=ME) == (1, old.decode())


@pytest.mark.parametrize("key", [KEYS.notices, PLANS, RESULTS])
@pytest.mark.parametrize("trimmed", [False, True])
def test_an_epoch_is_above_what_the_logs_held_though_the_counter_went_back(
    backend: Backend, store: Store, key: str, trimmed: bool
) -> None:
    """A replica with an older counter became the primary, and a writer went on under the epoch it knew."""
    open_logs(store)
    store.log(key, keep=10).append(EntryId(500, 7), b"late")
    if trimmed:
        assert store.log(key).trim("501-0") == 0
    assert open_logs(store).epoch == 501
    assert [store.log(name).last() for name in (KEYS.notices, PLANS, RESULTS)] == ["501-1", "501-0", "501-0"]
    assert store.get([KEYS.epoch]) == [b"501"]
    assert store.open_epoch(lease_value=ME)[0] == 502


def test_where_all_data_was_lost_epochs_begin_anew(backend: Backend, store: Store) -> None:
    """Nothing of the earlier epochs gets into the logs of the new ones."""
    open_logs(store)
    open_logs(store)
    backend.lose_data()
    with pytest.raises(Fenced):
        store.log(RESULTS, keep=10).append(EntryId(2, 1), b"late")
    assert open_logs(store).epoch == 1


def test_counting_departures_is_idempotent(backend: Backend, store: Store) -> None:
    lead(store)
    store.announce(KEYS.gateway("g"), b"", ttl=60)
    epoch, _ = store.open_epoch(lease_value=ME)
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
    store.announce(KEYS.gateway("g"), b"", ttl=60)
    store.open_epoch(lease_value=ME)
    backend.scripts.submit("r", n=5, bound=9)
    store.count_departures(epoch=1, total=1)
    epoch, _ = store.open_epoch(lease_value=ME)
    assert store.get([KEYS.waiting]) == [b"0"]
    backend.scripts.submit("s", n=2, bound=9)
    store.count_departures(epoch=epoch, total=1)
    assert store.get([KEYS.waiting]) == [b"1"]
