"""The keys of a gateway follow those of the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import redis.exceptions

from albireo.contract.api_keys import ApiKey, digest_of, new_key
from albireo.runtime.clock import SYSTEM_CLOCK
from gateway.calls.refusal import Refusal
from gateway.liveness import key_watch
from gateway.liveness.key_watch import KeyWatch, NoKeys
from gateway.store.api_keys import KeysRead

TEXT, ID = new_key()
KEY = ApiKey(digest=digest_of(TEXT), tenant="a", least_priority=0, greatest_priority=0, created_at=0)


class Source:
    """Keys in memory."""

    def __init__(self, **keys: ApiKey) -> None:
        self.found = KeysRead(b"1" if keys else None, keys, [])
        self.reads = 0
        self.asked = 0
        self.broken = False

    async def version(self) -> bytes | None:
        self.asked += 1
        if self.broken:
            raise redis.exceptions.ConnectionError("gone")
        return self.found.version

    async def read(self) -> KeysRead:
        self.reads += 1
        return self.found

    async def close(self) -> None:
        """Nothing to close."""


def watch_of(source: Source, *, is_open: bool = False) -> KeyWatch:
    return KeyWatch(source, SYSTEM_CLOCK, is_open=is_open, host="192.0.2.1")


@asynccontextmanager
async def running(watch: KeyWatch) -> AsyncIterator[None]:
    await watch.start()
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        watch.stop()
        await task


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_watch, "WATCH_SECONDS", 0.01)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


def accepts(watch: KeyWatch) -> bool:
    with contextlib.suppress(Refusal):
        return watch.keyring.caller((("authorization", f"Bearer {TEXT}"),)).tenant == "a"
    return False


async def test_without_a_key_it_does_not_start_unless_it_may_serve_everyone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(NoKeys) as refused:
        await watch_of(Source()).start()
    assert str(refused.value).count("\n") == 0
    for part in ("192.0.2.1", "albireo keys create", "--open"):
        assert part in str(refused.value)
    await watch_of(Source(), is_open=True).start()
    assert "everyone who reaches 192.0.2.1 is served" in caplog.text


async def test_a_new_and_a_revoked_key_count_as_soon_as_they_are_seen() -> None:
    source = Source(**{ID: KEY})
    watch = watch_of(source)
    async with running(watch):
        assert accepts(watch)
        source.found = KeysRead(b"2", {}, [])
        await eventually(lambda: not accepts(watch))
        source.found = KeysRead(b"3", {ID: KEY}, [])
        await eventually(lambda: accepts(watch))


async def test_keys_are_read_only_where_they_have_changed() -> None:
    source = Source(**{ID: KEY})
    async with running(watch_of(source)):
        await eventually(lambda: source.asked > 5)
    assert source.reads == 1


async def test_a_store_that_does_not_answer_leaves_the_last_known_keys() -> None:
    source = Source(**{ID: KEY})
    watch = watch_of(source)
    async with running(watch):
        source.broken = True
        await eventually(lambda: source.asked > 5)
        assert accepts(watch)
        source.found, source.broken = KeysRead(b"2", {}, []), False
        await eventually(lambda: not accepts(watch))


async def test_a_record_that_cannot_be_read_is_reported_and_counts_as_a_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Source()
    source.found = KeysRead(b"1", {}, ["API key x: not a record"])
    watch = watch_of(source, is_open=True)
    await watch.start()
    assert not watch.keyring.is_open
    assert "API key x: not a record" in caplog.text
