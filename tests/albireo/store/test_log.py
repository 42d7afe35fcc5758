"""The logs, in Redis and in memory."""

from __future__ import annotations

import pytest

from albireo.store.interface import EntryId, Fenced, LogEntry, Store, appended_at
from tests.albireo.store.conftest import KEYS, Backend


def test_entries_are_read_in_the_order_of_their_ids(store: Store) -> None:
    log = store.log(KEYS.plans, keep=100)
    for entry_id in (EntryId(1, 0), EntryId(1, 1), EntryId(1, 10), EntryId(2, 0)):
        log.append(entry_id, str(entry_id).encode())
    assert log.read("0-0", 0) == [(name, name) for name in (b"1-0", b"1-1", b"1-10", b"2-0")]
    assert log.read("1-1", 0) == [(b"1-10", b"1-10"), (b"2-0", b"2-0")]
    assert log.read("2-0", 0) == []


def test_the_last_id_is_that_of_the_newest_entry(store: Store) -> None:
    log = store.log(KEYS.results, keep=100)
    assert log.last() == "0-0"
    log.append(EntryId(3, 4), b"x")
    assert log.last() == "3-4"


@pytest.mark.parametrize("entry_id", [EntryId(1, 2), EntryId(1, 1), EntryId(0, 9)])
def test_an_id_that_is_not_above_the_last_is_refused(store: Store, entry_id: EntryId) -> None:
    log = store.log(KEYS.plans, keep=100)
    log.append(EntryId(1, 2), b"first")
    with pytest.raises(Fenced):
        log.append(entry_id, b"second")
    assert log.read("0-0", 0) == [(b"1-2", b"first")]


def test_the_same_entry_again_is_not_a_second_writer(store: Store) -> None:
    """A retry after a lost answer finds its own entry."""
    results = store.log(KEYS.results, keep=100)
    results.append(EntryId(1, 1), b"same")
    results.append(EntryId(1, 1), b"same")
    with pytest.raises(Fenced):
        results.append(EntryId(1, 1), b"other")
    assert results.read("0-0", 0) == [(b"1-1", b"same")]


def test_a_log_that_is_opened_without_a_length_is_only_read(store: Store) -> None:
    store.log(KEYS.plans, keep=100).append(EntryId(1, 1), b"x")
    with pytest.raises(ValueError, match="keep"):
        store.log(KEYS.plans).append(EntryId(1, 2), b"y")
    assert store.log(KEYS.plans).read("0-0", 0) == [(b"1-1", b"x")]


def test_a_read_waits_for_the_next_entry(backend: Backend) -> None:
    read: list[list[LogEntry]] = []
    log = backend.open().log(KEYS.plans, keep=100)

    def body() -> None:
        read.append(backend.open().log(KEYS.plans).read("0-0", 4))

    reader = backend.clock.start("reader", body)
    backend.clock.sleep(0.02)
    assert read == []
    log.append(EntryId(1, 1), b"x")
    reader.join(2)
    assert read == [[(b"1-1", b"x")]]


def test_a_read_of_several_logs_waits_for_any(backend: Backend) -> None:
    read: list[dict[str, list[LogEntry]]] = []
    log = backend.open().log(KEYS.results, keep=100)

    def body() -> None:
        read.append(backend.open().read({KEYS.inbox: "0-0", KEYS.results: "1-0"}, 4))

    log.append(EntryId(1, 0), b"old")
    reader = backend.clock.start("reader", body)
    backend.clock.sleep(0.02)
    log.append(EntryId(1, 1), b"new")
    reader.join(2)
    assert read == [{KEYS.results: [(b"1-1", b"new")]}]


def test_a_read_gives_up_after_its_time(backend: Backend, store: Store) -> None:
    began = backend.clock.now()
    assert store.read({KEYS.plans: "0-0"}, 0.03) == {}
    # Redis looks a hundred milliseconds late at times, and by another clock.
    assert 0.025 < backend.clock.now() - began < 1


def test_what_is_before_an_id_is_trimmed(store: Store) -> None:
    log = store.log(KEYS.plans, keep=1000)
    for step in range(1, 8):
        log.append(EntryId(1, step), b"x")
    assert log.trim("1-6") == 2
    assert [entry_id for entry_id, _ in log.read("0-0", 0)] == [b"1-6", b"1-7"]
    assert log.trim("1-3") == 2
    with pytest.raises(Fenced):
        log.append(EntryId(1, 5), b"x")


def test_a_log_keeps_about_as_many_entries_as_it_should(store: Store) -> None:
    log = store.log(KEYS.plans, keep=100)
    for step in range(1, 1001):
        log.append(EntryId(1, step), b"p" * 100)
    left = log.trim("0-0")
    assert 100 <= left <= 300  # Redis trims whole nodes of about 100 entries
    assert log.last() == "1-1000"


def test_ids_of_the_inbox_are_times_of_the_store(backend: Backend, store: Store) -> None:
    assert store.lease(KEYS.lease, b"me", ttl=10).acquire()
    before = store.time()
    for name in ("a", "b"):
        backend.scripts.drop(name)
        backend.clock.sleep(0.005)
    after = store.time()
    first, second = (appended_at(entry_id) for entry_id, _ in store.log(KEYS.inbox).read("0-0", 0))
    # An id has whole milliseconds; the clock of Redis is known to about half a round trip.
    assert before - 0.005 <= first < second <= after + 0.005
