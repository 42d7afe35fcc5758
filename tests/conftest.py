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


def pytest_configure(config: pytest.Config) -> None:
    """``free_port`` gives ports of this process alone."""
    own = OwnPorts()
    config.add_cleanup(own.close)
    ports.bind_once = own.bind_once


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A module's tests run in one process, and in one with all others that share its stack."""
    if config.getoption("dist", "no") != "loadgroup":
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            shared = "tp2" if "tp2" in getattr(item, "fixturenames", ()) else item.nodeid.split("::")[0]
            item.add_marker(pytest.mark.xdist_group(shared))


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
