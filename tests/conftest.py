"""Fixtures that every tier's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from albireo.local import ports
from albireo.local.redis_server import LocalRedis
from tests.own_ports import OwnPorts
from tests.stack import Running, running_stack

SHARED_FIXTURES = ("tp2", "cases")
"""Fixtures of a session that take seconds: one process makes each, for all the files that use it."""
LONG = tuple(f"tests/{folder}" for folder in ("integration", "races", "robustness", "worker_svc"))
"""Tests with real processes or real models."""


def pytest_configure(config: pytest.Config) -> None:
    """``free_port`` gives ports of this process alone."""
    own = OwnPorts()
    config.add_cleanup(own.close)
    ports.bind_once = own.bind_once


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side: what shares an expensive fixture runs in one process, and what takes long begins first."""
    if not config.getoption("loadgroup", False):
        return
    for item in items:
        used = getattr(item, "fixturenames", ())
        group = next((name for name in SHARED_FIXTURES if name in used), item.nodeid.split("::")[0])
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real Redis server of this test run."""
    server = LocalRedis(Path(tmp_path_factory.mktemp("redis")))
    yield server.url
    server.stop()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of the server, emptied before the test."""
    client = redis.Redis.from_url(redis_server)
    client.flushall()
    client.close()
    return redis_server


@pytest.fixture(scope="session")
def tp2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One TP=2 stack in fp32 that the tests of a session share."""
    with running_stack(tmp_path_factory.mktemp("tp2"), tp=2) as running:
        yield running


@pytest.fixture
def unharmed(tp2: Running) -> Iterator[Running]:
    """The shared stack; checks after the test that every slot and block is free again."""
    yield tp2
    load = tp2.wait_idle()
    assert load.slots_free == load.slots_total > 0
    assert load.blocks_free == load.blocks_total > 0
    assert list(load.integrity_violations) == []
