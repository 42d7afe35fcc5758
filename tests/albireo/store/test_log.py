"""The logs, in Redis and in memory."""

from __future__ import annotations

import pytest

from albireo.store.interface import LAST_STEP, EntryId, Fenced, LogEntry, NewEntry, Store, appended_at
from tests.albireo.store.conftest import KEYS, PLANS, RESULTS, Backend, lead, open_logs


@pytest.fixture
def opened(store: Store) -> Store:
    """With the logs of a group, opened in epoch 1."""
    open_logs(store)
    return store


def behind_opening(store: Store, key: str) -> list[LogEntry]:
    """What a log holds without its first entry, ``1-0``."""
    return store.log(key).read("1-0", 0)


def test_entries_are_read_in_the_order_of_their_ids(opened: Store) -> None:
    log = opened.log(PLANS, keep=100)
    for entry_id in (EntryId(1, 1), EntryId(1, 10), EntryId(1, LAST_STEP), EntryId(2, 0)):
        log.append(entry_id, str(entry_id).encode())
    last = b"1-%d" % LAST_STEP
    assert log.read("1-0", 0) == [(name, name) for name in (b"1-1", b"1-10", last, b"2-0")]
    assert log.read("1-1", 0) == [(b"1-10", b"1-10"), (last, last), (b"2-0", b"2-0")]
    assert log.read(last.decode(), 0) == [(b"2-0", b"2-0")]
    assert log.read("2-0", 0) == []


def test_the_last_id_is_that_of_the_newest_entry(opened: Store) -> None:
    assert opened.log(KEYS.results("another")).last() == "0-0"
    log = opened.log(RESULTS, keep=100)
    log.append(EntryId(3, 4), b"x")
    assert log.last() == "3-4"


@pytest.mark.parametrize("entry_id", [EntryId(1, 2), EntryId(1, 1), EntryId(0, 9)])
def test_an_id_that_is_not_above_the_last_is_refused(opened: Store, entry_id: EntryId) -> None:
    log = opened.log(PLANS, keep=100)
    log.append(EntryId(1, 2), b"first")
    with pytest.raises(Fenced):
        log.append(entry_id, b"second")
    assert behind_opening(opened, PLANS) == [(b"1-2", b"first")]


def test_a_log_that_was_not_opened_takes_no_entry(backend: Backend, store: Store) -> None:
    with pytest.raises(Fenced, match="gone"):
        store.log(PLANS, keep=100).append(EntryId(1, 1), b"x")
    open_logs(store)
    backend.lose_data()
    with pytest.raises(Fenced, match="gone"):
        store.log(PLANS, keep=100).append(EntryId(1, 1), b"x")
    assert store.log(PLANS).last() == "0-0"


def test_a_log_that_is_trimmed_empty_takes_entries(opened: Store) -> None:
    log = opened.log(PLANS, keep=100)
    assert log.trim("1-1") == 0
    log.append(EntryId(1, 1), b"x")
    assert log.read("0-0", 0) == [(b"1-1", b"x")]


def test_the_same_entry_again_is_not_a_second_writer(opened: Store) -> None:
    """A retry after a lost answer finds its own entry."""
    results = opened.log(RESULTS, keep=100)
    results.append(EntryId(1, 1), b"same")
    results.append(EntryId(1, 1), b"same")
    with pytest.raises(Fenced):
        results.append(EntryId(1, 1), b"other")
    assert behind_opening(opened, RESULTS) == [(b"1-1", b"same")]


def test_a_log_that_is_opened_without_a_length_is_only_read(opened: Store) -> None:
    opened.log(PLANS, keep=100).append(EntryId(1, 1), b"x")
    with pytest.raises(ValueError, match="keep"):
        opened.log(PLANS).append(EntryId(1, 2), b"y")
    assert behind_opening(opened, PLANS) == [(b"1-1", b"x")]


def test_entries_of_several_logs_are_appended_at_once(opened: Store) -> None:
    opened.append_all([], keep=100)
    for step in (1, 2):
        entries = [NewEntry(key, EntryId(1, step), key.encode()) for key in (PLANS, KEYS.notices, RESULTS)]
        entries[1] = entries[1]._replace(entry_id=EntryId(1, 10 + step))
        opened.append_all(entries, keep=100)
    opened.append_all([NewEntry(PLANS, EntryId(1, 3), b"alone")], keep=100)
    plans = [(b"1-1", PLANS.encode()), (b"1-2", PLANS.encode()), (b"1-3", b"alone")]
    assert behind_opening(opened, PLANS) == plans
    assert behind_opening(opened, RESULTS) == [(b"1-%d" % step, RESULTS.encode()) for step in (1, 2)]
    assert opened.log(KEYS.notices).last() == "1-12"


def test_of_several_entries_those_are_appended_that_are_not_refused(opened: Store) -> None:
    opened.log(RESULTS, keep=100).append(EntryId(1, 1), b"same")
    other = opened.log(KEYS.notices, keep=100)
    other.append(EntryId(1, 7), b"of another")
    gone = NewEntry(KEYS.plans("gone"), EntryId(1, 1), b"x")
    refused = NewEntry(KEYS.notices, EntryId(1, 7), b"x")
    again = NewEntry(RESULTS, EntryId(1, 1), b"same")
    opened.append_all([again, NewEntry(PLANS, EntryId(1, 1), b"x")], keep=100)
    for step, wrong in enumerate((gone, refused), 2):
        with pytest.raises(Fenced, match=wrong.key):
            opened.append_all([wrong, again, NewEntry(PLANS, EntryId(1, step), b"x")], keep=100)
    assert [entry_id for entry_id, _ in behind_opening(opened, PLANS)] == [b"1-1", b"1-2", b"1-3"]
    assert behind_opening(opened, RESULTS) == [(b"1-1", b"same")]


def test_a_log_keeps_its_length_when_entries_of_several_are_appended(opened: Store) -> None:
    for step in range(1, 1001):
        entry = NewEntry(PLANS, EntryId(1, step), b"p" * 100)
        opened.append_all([entry, entry._replace(key=RESULTS)], keep=100)
    assert 100 <= opened.log(PLANS).trim("0-0") <= 300


def test_a_read_waits_for_the_next_entry(backend: Backend, opened: Store) -> None:
    read: list[list[LogEntry]] = []
    log = backend.open().log(PLANS, keep=100)

    def body() -> None:
        read.append(backend.open().log(PLANS).read("1-0", 4))

    reader = backend.clock.start("reader", body)
    backend.clock.sleep(0.02)
    assert read == []
    log.append(EntryId(1, 1), b"x")
    reader.join(2)
    assert read == [[(b"1-1", b"x")]]


def test_a_read_waits_for_a_log_that_is_not_there_yet(backend: Backend, store: Store) -> None:
    read: list[list[LogEntry]] = []
    reader = backend.clock.start("reader", lambda: read.append(backend.open().log(PLANS).read("0-0", 4)))
    backend.clock.sleep(0.02)
    open_logs(store)
    reader.join(2)
    assert [[entry_id for entry_id, _ in entries] for entries in read] == [[b"1-0"]]


def test_a_read_of_several_logs_waits_for_any(backend: Backend, opened: Store) -> None:
    read: list[dict[str, list[LogEntry]]] = []
    log = backend.open().log(RESULTS, keep=100)

    def body() -> None:
        read.append(backend.open().read({KEYS.inbox: "0-0", RESULTS: "1-0"}, 4))

    reader = backend.clock.start("reader", body)
    backend.clock.sleep(0.02)
    log.append(EntryId(1, 1), b"new")
    reader.join(2)
    assert read == [{RESULTS: [(b"1-1", b"new")]}]


def test_a_read_gives_up_after_its_time(backend: Backend, store: Store) -> None:
    began = backend.clock.now()
    assert store.read({PLANS: "0-0"}, 0.03) == {}
    # Redis looks a hundred milliseconds late at times, and by another clock.
    assert 0.025 < backend.clock.now() - began < 1


def test_what_is_before_an_id_is_trimmed(opened: Store) -> None:
    log = opened.log(PLANS, keep=1000)
    for step in range(1, 8):
        log.append(EntryId(1, step), b"x")
    assert log.trim("1-6") == 2
    assert [entry_id for entry_id, _ in log.read("0-0", 0)] == [b"1-6", b"1-7"]
    assert log.trim("1-3") == 2
    with pytest.raises(Fenced):
        log.append(EntryId(1, 5), b"x")


def test_a_log_keeps_about_as_many_entries_as_it_should(opened: Store) -> None:
    log = opened.log(PLANS, keep=100)
    for step in range(1, 1001):
        log.append(EntryId(1, step), b"p" * 100)
    left = log.trim("0-0")
    assert 100 <= left <= 300  # Redis trims whole nodes of about 100 entries
    assert log.last() == "1-1000"


def test_ids_of_the_inbox_are_times_of_the_store(backend: Backend, store: Store) -> None:
    lead(store)
    before = store.time()
    for name in ("a", "b"):
        backend.scripts.drop(name)
        backend.clock.sleep(0.005)
    after = store.time()
    first, second = (appended_at(entry_id) for entry_id, _ in store.log(KEYS.inbox).read("0-0", 0))
    # An id has whole milliseconds; the clock of Redis is known to about half a round trip.
    assert before - 0.005 <= first < second <= after + 0.005
