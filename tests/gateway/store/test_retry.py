"""How long a gateway retries calls to the store, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from albireo.store.connection import RECONNECT_SECONDS
from albireo.virtual.clock import VirtualClock
from albireo.virtual.keyspace import Keyspace
from gateway.store.memory_store import MemoryGatewayStore
from gateway.store.retry import RETRY_SECONDS, StoreRetry, retried
from tests.gateway.store.scene import KEYS

LOST = RedisConnectionError("the connection broke")


class FailingStore(MemoryGatewayStore):
    """Every call of ``cancel`` fails until a time."""

    def __init__(self, clock: VirtualClock, error: RedisError, *, until: float) -> None:
        super().__init__(Keyspace(clock), KEYS, "a")
        self.recovered: list[RedisError] = []
        self.calls = 0
        self._clock = clock
        self._error = error
        self._until = until

    async def cancel(self, cancellation: bytes) -> None:
        self.calls += 1
        if self._clock.now() < self._until:
            raise self._error

    async def recover(self, error: RedisError) -> None:
        self.recovered.append(error)


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with VirtualClock() as found:
        yield found


def cancel(clock: VirtualClock, store: FailingStore) -> None:
    clock.run(retried(store, clock, lambda: store.cancel(b"")))


def test_an_error_that_passes_is_retried_until_the_store_answers(clock: VirtualClock) -> None:
    store = FailingStore(clock, LOST, until=RECONNECT_SECONDS - 1)
    cancel(clock, store)
    assert RECONNECT_SECONDS - 1 <= clock.now() <= RECONNECT_SECONDS - 1 + RETRY_SECONDS
    assert store.recovered == [LOST] * (store.calls - 1)


def test_an_error_that_lasts_too_long_is_raised(clock: VirtualClock) -> None:
    store = FailingStore(clock, LOST, until=10 * RECONNECT_SECONDS)
    with pytest.raises(RedisConnectionError):
        cancel(clock, store)
    assert RECONNECT_SECONDS < clock.now() <= RECONNECT_SECONDS + 2 * RETRY_SECONDS


def test_an_error_that_cannot_pass_is_raised_at_once(clock: VirtualClock) -> None:
    store = FailingStore(clock, ResponseError("WRONGTYPE it is no stream"), until=1)
    with pytest.raises(ResponseError):
        cancel(clock, store)
    assert (store.calls, clock.now()) == (1, 0)


def test_a_call_that_succeeds_begins_a_new_period(clock: VirtualClock) -> None:
    store = FailingStore(clock, LOST, until=0)
    retry = StoreRetry(store, clock)

    async def fail_for(seconds: float) -> bool:
        await retry.gives_up(LOST)
        await asyncio.sleep(seconds)
        return await retry.gives_up(LOST)

    assert not clock.run(fail_for(RECONNECT_SECONDS - 1))
    assert retry.failing
    retry.succeeded()
    assert not retry.failing
    assert not clock.run(fail_for(RECONNECT_SECONDS - 1))
    assert clock.run(fail_for(2))
