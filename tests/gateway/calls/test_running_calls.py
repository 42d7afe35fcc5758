"""Running calls and their keys: a call ends when its key is revoked or expires, and for no other reason."""

from __future__ import annotations

import asyncio
import time

import pytest

from albireo.contract.api_keys import new_key
from gateway.calls.callers import current_caller
from gateway.calls.refusal import Refusal
from tests.gateway.calls.keys import Clocks, headers, keyring, record


async def test_a_call_whose_key_is_revoked_or_expires_ends() -> None:
    clocks = Clocks()
    ring = keyring(clocks)
    (one, one_id), (two, two_id) = new_key(), new_key()
    keys = {one_id: record(one), two_id: record(two, expires_at=1_010)}
    ring.replace(keys, needed=True)

    async def call(text: str) -> str | None:
        try:
            with ring.admit(headers(text)):
                assert current_caller().key_id == text[4:20]
                await asyncio.sleep(60)
        except Refusal as refusal:
            return refusal.code.name
        return None

    calls = [asyncio.create_task(call(text)) for text in (one, one, two)]
    await asyncio.sleep(0)
    ring.confirm()
    await asyncio.sleep(0.01)
    assert [task.done() for task in calls] == [False, False, False]
    ring.replace({two_id: keys[two_id]}, needed=True)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*calls[:2]) == ["UNAUTHENTICATED"] * 2
        assert not calls[2].done()
        clocks.wall = 1_010
        ring.confirm()
        assert await calls[2] == "UNAUTHENTICATED"


async def test_a_call_that_takes_long_to_end_does_not_end_the_watch_of_the_keys() -> None:
    """Its key is revoked, and read again while the call is still being cleaned up."""
    ring = keyring(Clocks())
    text, key_id = new_key()
    ring.replace({key_id: record(text)}, needed=True)
    cleaned_up = asyncio.Event()

    async def call() -> None:
        with ring.admit(headers(text)):
            try:
                await asyncio.sleep(60)
            finally:
                await cleaned_up.wait()

    running = asyncio.create_task(call())
    await asyncio.sleep(0)
    ring.replace({}, needed=True)
    await asyncio.sleep(0.01)
    ring.confirm()
    cleaned_up.set()
    async with asyncio.timeout(5):
        with pytest.raises(Refusal):
            await running


async def test_calls_without_a_key_end_when_the_first_key_is_made() -> None:
    ring = keyring(Clocks(), is_open=True)
    text, key_id = new_key()

    async def call() -> None:
        with ring.admit(()):
            await asyncio.sleep(60)

    running = asyncio.create_task(call())
    await asyncio.sleep(0)
    ring.replace({key_id: record(text)}, needed=True)
    async with asyncio.timeout(5):
        with pytest.raises(Refusal):
            await running


async def test_a_call_that_its_client_ends_is_not_taken_for_a_revocation() -> None:
    clocks = Clocks()
    ring = keyring(clocks)
    text, key_id = new_key()
    ring.replace({key_id: record(text)}, needed=True)

    async def call() -> None:
        with ring.admit(headers(text)):
            await asyncio.sleep(60)

    alone, both = asyncio.create_task(call()), asyncio.create_task(call())
    await asyncio.sleep(0)
    alone.cancel()
    ring.confirm()
    both.cancel()
    ring.replace({}, needed=True)  # the client left, and the key was revoked
    for task in (alone, both):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_call_is_forgotten_at_its_end() -> None:
    ring = keyring(Clocks(), is_open=True)
    with pytest.raises(TimeoutError), ring.admit(()):
        raise TimeoutError
    text, key_id = new_key()
    ring.replace({key_id: record(text)}, needed=True)
    await asyncio.sleep(0.01)  # this task served the call, and is not cancelled for it


def test_to_admit_a_call_takes_microseconds() -> None:
    ring = keyring(Clocks(), is_open=True)

    async def admit() -> float:
        began = time.process_time()
        for _ in range(1_000):
            with ring.admit(()):
                pass
        return (time.process_time() - began) / 1_000

    assert min(asyncio.run(admit()) for _ in range(10)) < 50e-6
