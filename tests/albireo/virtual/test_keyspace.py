"""What the keyspace in memory forgets, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace


@pytest.fixture
def space() -> Iterator[Keyspace]:
    with VirtualClock() as clock:
        yield Keyspace(clock)


def test_a_log_is_gone_when_its_time_has_passed(space: Keyspace) -> None:
    space.append("log", (1, 0), b"x")
    space.expire_stream("log", ttl=60)
    space.clock.sleep(59)
    assert space.read({"log": "0-0"}) == {"log": [(b"1-0", b"x")]}
    space.clock.sleep(1)
    assert space.find_stream("log") is None
    assert space.read({"log": "0-0"}) == {}


def test_a_log_that_expired_begins_anew(space: Keyspace) -> None:
    space.append("log", (5, 0), b"old")
    space.expire_stream("log", ttl=60)
    space.clock.sleep(60)
    space.append("log", (1, 0), b"new")
    space.clock.sleep(100)
    assert space.read({"log": "0-0"}) == {"log": [(b"1-0", b"new")]}


def test_a_log_that_is_not_there_is_not_made_by_a_look_at_it(space: Keyspace) -> None:
    assert space.stream("log").newest == (0, 0)
    space.expire_stream("log", ttl=60)
    assert space.find_stream("log") is None
