"""A measurement that is stopped."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from pathlib import Path

import pytest

from albireo.local.redis_server import LocalRedis
from albireo.models import TINY
from albireo.planning.calibration.measure import Setting, measure, run_unless


def test_a_stack_that_is_stopped_while_it_starts_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    servers: list[LocalRedis] = []

    class Seen(LocalRedis):
        def __init__(self, directory: Path) -> None:
            super().__init__(directory)
            servers.append(self)

    monkeypatch.setattr("albireo.planning.calibration.measure.LocalRedis", Seen)
    stop = threading.Event()
    stop.set()
    with pytest.raises(RuntimeError, match="stopped before the stack served"):
        measure(Setting(TINY, "cpu", "bfloat16", 16, stop=stop), [])
    assert list(tmp_path.iterdir()) == []
    assert [server.alive for server in servers] == [False]


def test_a_running_load_is_cancelled_soon_after_the_stop() -> None:
    ended = []

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    stop = threading.Event()
    began = time.monotonic()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(RuntimeError, match="stopped within a load"):
        asyncio.run(run_unless(stop, endless()))
    assert ended
    assert time.monotonic() - began < 10


def test_a_load_that_is_not_stopped_runs_to_its_end_or_its_error() -> None:
    async def load(error: str = "") -> None:
        await asyncio.sleep(0.01)
        if error:
            raise RuntimeError(error)

    asyncio.run(run_unless(threading.Event(), load()))
    with pytest.raises(RuntimeError, match="a request failed"):
        asyncio.run(run_unless(threading.Event(), load("a request failed")))
