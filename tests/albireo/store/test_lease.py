"""Leases and announcements: keys that expire, in Redis and in memory."""

from __future__ import annotations

import pytest

from albireo.store.interface import Fenced, Store
from tests.albireo.store.conftest import KEYS, Backend


def test_a_lease_has_one_owner(store: Store) -> None:
    first, second = (store.lease(KEYS.lease, name, ttl=10) for name in (b"1", b"2"))
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    with pytest.raises(Fenced):
        second.renew()
    second.release()  # not its own: nothing happens
    assert store.get([KEYS.lease]) == [b"1"]
    first.release()
    assert store.get([KEYS.lease]) == [None]
    assert second.acquire()


def test_a_lease_is_lost_by_expiry_and_taken_over(backend: Backend, store: Store) -> None:
    first = store.lease(KEYS.lease, b"1", ttl=0.2)
    second = store.lease(KEYS.lease, b"2", ttl=5)
    assert first.acquire()
    assert not second.acquire()
    first.renew()
    backend.wait_until(second.acquire)
    with pytest.raises(Fenced):
        first.renew()
    first.release()
    second.renew()


def test_a_renewed_lease_lives_on(backend: Backend, store: Store) -> None:
    lease, other = (store.lease(KEYS.lease, name, ttl=0.3) for name in (b"1", b"2"))
    assert lease.acquire()
    for _ in range(10):
        backend.clock.sleep(0.04)
        assert not other.acquire()  # it has not run out: a renewal would take it again
        lease.renew()
    assert store.get([KEYS.lease]) == [b"1"]


def test_a_lease_that_ran_out_is_taken_again_unless_the_logs_are_gone(backend: Backend, store: Store) -> None:
    lease = store.lease(KEYS.lease, b"1", ttl=10)
    assert lease.acquire()
    store.open_epoch(lease_value=b"1")
    lease.renew()
    backend.scripts.delete(KEYS.lease)  # as if the store had stood still
    lease.renew()
    assert store.get([KEYS.lease]) == [b"1"]
    backend.lose_data()
    with pytest.raises(Fenced):
        lease.renew()
    assert store.get([KEYS.lease]) == [None]


def test_an_announcement_is_there_until_it_expires(backend: Backend, store: Store) -> None:
    store.announce(KEYS.load, b"old", ttl=10)
    store.announce(KEYS.load, b"new", ttl=0.03)
    store.announce(KEYS.gpu("x", 0), b"gpu", ttl=10)
    assert store.get([KEYS.load, KEYS.gpu("x", 0), KEYS.gpu("x", 1)]) == [b"new", b"gpu", None]
    backend.wait_until(lambda: store.get([KEYS.load]) == [None])
    assert store.get([KEYS.gpu("x", 0)]) == [b"gpu"]


def test_a_value_that_is_put_stays(store: Store) -> None:
    store.announce(KEYS.served_model, b"old", ttl=0.01)
    store.put(KEYS.served_model, b"new")
    store.put(KEYS.served_model, b"newer")
    assert store.get([KEYS.served_model]) == [b"newer"]


def test_all_stores_have_the_same_time(backend: Backend) -> None:
    first, second = backend.open(), backend.open()
    first.ping()
    before, between, after = first.time(), second.time(), first.time()
    assert before - 0.01 <= between <= after + 0.01
    backend.clock.sleep(0.02)
    assert first.time() - after == pytest.approx(0.02, abs=0.02)
