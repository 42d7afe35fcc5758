"""When a gateway knows that others may have taken it for dead, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from gateway.store.heartbeat import TTL_SECONDS, Heartbeat
from gateway.store.memory_store import MemoryGatewayStore
from tests.gateway.store.scene import KEYS


class Beating:
    """A gateway's heartbeat that has started, and its store."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.store = MemoryGatewayStore(Keyspace(clock), KEYS, "a")
        self.heartbeat = Heartbeat(self.store, clock)
        clock.run(self.heartbeat.start())

    def beat(self, *, answered_after: float = 0.0) -> bool:
        """One more heartbeat; whether the key had been kept."""
        sent_at = self.clock.now()
        found = self.clock.run(self.store.check(TTL_SECONDS))
        self.clock.sleep(answered_after)
        return self.heartbeat.confirm(found.heartbeat_kept, sent_at)


@pytest.fixture
def beating() -> Iterator[Beating]:
    with VirtualClock() as clock:
        clock.sleep(5)
        yield Beating(clock)


def test_it_lapses_when_no_heartbeat_was_confirmed_for_its_time_to_live(beating: Beating) -> None:
    beating.clock.sleep(TTL_SECONDS)
    assert not beating.heartbeat.lapsed
    beating.clock.sleep(0.1)
    assert beating.heartbeat.lapsed


def test_every_confirmed_one_prolongs_it(beating: Beating) -> None:
    for _ in range(5):
        beating.clock.sleep(TTL_SECONDS / 2)
        assert beating.beat()
    assert not beating.heartbeat.lapsed


def test_one_that_comes_too_late_says_so_once(beating: Beating) -> None:
    beating.clock.sleep(TTL_SECONDS + 1)
    assert not beating.beat()
    assert not beating.heartbeat.lapsed
    assert beating.beat()


def test_it_counts_from_the_time_at_which_it_was_sent(beating: Beating) -> None:
    beating.clock.sleep(1)
    assert beating.beat(answered_after=TTL_SECONDS - 1)
    assert not beating.heartbeat.lapsed
    beating.clock.sleep(1.1)
    assert beating.heartbeat.lapsed


def test_one_whose_answer_takes_too_long_counts_as_expired(beating: Beating) -> None:
    assert not beating.beat(answered_after=TTL_SECONDS + 1)
