"""What gateways do with the inbox, in Redis and in memory: the same verdicts."""

from __future__ import annotations

import pytest

from albireo.contract import codec
from albireo.contract.plan import Submission
from albireo.store.interface import Store
from tests.albireo.store.conftest import KEYS, ME, Backend, lead
from tests.albireo.store.scripted import Scripts


@pytest.fixture
def scripts(backend: Backend) -> Scripts:
    return backend.scripts


@pytest.fixture
def serving(store: Store) -> Store:
    """With a scheduler in its first epoch, and the gateway ``g``."""
    lead(store)
    store.announce(KEYS.gateway("g"), b"", ttl=60)
    store.open_epoch(lease_value=ME)
    return store


def inbox(store: Store) -> list[str]:
    """Names of the submissions, and of the cancellations with a minus before them."""
    entries = [codec.inbox_from_bytes(data) for _, data in store.log(KEYS.inbox).read("0-0", 0)]
    return [entry.request_id if isinstance(entry, Submission) else f"-{entry}" for entry in entries]


def test_a_submission_needs_gateway_and_scheduler(store: Store, scripts: Scripts) -> None:
    assert scripts.submit("a") == ("no_gateway", 0)
    store.announce(KEYS.gateway("g"), b"", ttl=60)
    assert scripts.submit("a") == ("no_scheduler", 0)
    lead(store)
    store.open_epoch(lease_value=ME)
    assert scripts.submit("a") == ("accepted", 1)  # it waits for a group


def test_a_submission_is_accepted_once_an_epoch(serving: Store, scripts: Scripts) -> None:
    assert scripts.submit("a") == ("accepted", 1)
    assert scripts.submit("a") == ("duplicate", 1)
    assert scripts.submit("a", digest="other") == ("conflict", 1)
    assert inbox(serving) == ["a"]
    serving.open_epoch(lease_value=ME)
    assert scripts.submit("a") == ("accepted", 2)  # the last epoch gave it up
    assert scripts.submit("a") == ("duplicate", 2)


def test_the_queue_is_bounded_by_branches(serving: Store, scripts: Scripts) -> None:
    assert scripts.submit("a") == ("accepted", 1)
    assert scripts.submit("b") == ("accepted", 1)
    assert scripts.submit("c") == ("full", 1)
    assert scripts.submit("c", n=3, bound=4) == ("full", 1)
    assert scripts.submit("c", n=3, bound=5) == ("accepted", 1)
    assert serving.get([KEYS.waiting]) == [b"5"]
    assert inbox(serving) == ["a", "b", "c"]


def test_an_id_is_free_again_where_its_gateway_died_before_the_end(serving: Store, scripts: Scripts) -> None:
    serving.announce(KEYS.gateway("dead"), b"", ttl=60)
    assert scripts.submit("over", gateway="dead")[0] == "accepted"
    scripts.end("over")
    assert scripts.submit("cut", gateway="dead")[0] == "accepted"
    assert scripts.submit("cut", digest="other", bound=9)[0] == "conflict"
    scripts.delete(KEYS.gateway("dead"))
    assert scripts.submit("over", bound=9)[0] == "duplicate"
    assert scripts.submit("cut", digest="other", bound=9)[0] == "accepted"
    # The one that lost its gateway is cancelled before the new one comes.
    assert inbox(serving) == ["over", "cut", "-cut", "cut"]
    assert scripts.submit("cut", digest="other", bound=9)[0] == "duplicate"


def test_a_request_is_cancelled_until_its_end_is_known(serving: Store, scripts: Scripts) -> None:
    assert scripts.cancel("a") == 0
    scripts.submit("a", name="a@1")
    assert scripts.cancel("a") == 1
    assert inbox(serving) == ["a@1", "-a@1"]
    scripts.end("a", name="a@0")  # of an earlier acceptance
    assert scripts.cancel("a") == 1
    scripts.end("a", name="a@1")
    assert scripts.cancel("a") == 0


def test_a_request_of_an_earlier_epoch_is_not_cancelled(serving: Store, scripts: Scripts) -> None:
    scripts.submit("a")
    serving.open_epoch(lease_value=ME)
    assert scripts.cancel("a") == 0


def test_without_a_scheduler_nothing_is_cancelled(serving: Store, scripts: Scripts) -> None:
    scripts.submit("a")
    scripts.delete(KEYS.lease)
    assert scripts.cancel("a") == -1
    scripts.drop("a")
    assert inbox(serving) == ["a"]


def test_a_withdrawn_request_is_cancelled_and_its_id_is_free(serving: Store, scripts: Scripts) -> None:
    scripts.submit("a", name="a@1")
    scripts.withdraw("a", name="a@0")
    assert scripts.submit("a") == ("duplicate", 1)
    scripts.withdraw("a", name="a@1")
    assert inbox(serving) == ["a@1", "-a@0", "-a@1"]
    assert scripts.submit("a", digest="other") == ("accepted", 1)
