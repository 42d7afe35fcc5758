"""Fixtures that every tier's tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings

from albireo.local import ports
from albireo.local.redis_server import LocalRedis
from albireo.runtime.imports import without_collection
from tests.own_ports import OwnPorts
from tests.stack import Running, running_stack

if settings.default is not None and settings.default.deadline is not None:
    # Machines that run tests are busy, and each test has a timeout.
    settings.register_profile("without deadlines", settings.default, deadline=None)
    settings.load_profile("without deadlines")
if not Path("/dev/nvidiactl").exists():
    # Without a GPU, Triton's kernels run in its interpreter. Triton decides that when it is imported, which
    # transformers does.
    os.environ.setdefault("TRITON_INTERPRET", "1")

LONG = tuple(f"tests/{folder}" for folder in ("virtual", "integration", "races", "robustness", "worker_svc"))
"""Long histories, real processes, real models."""


def pytest_configure(config: pytest.Config) -> None:
    """``free_port`` gives ports of this process alone."""
    own = OwnPorts()
    config.add_cleanup(own.close)
    config.add_cleanup(gc.unfreeze)  # else Triton, which transformers imports, lists all of it as leaked
    ports.bind_once = own.bind_once


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which tests run in one process."""
    from tests.side_by_side import FilesTogether

    return FilesTogether(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collecting imports everything, and all of it stays: the garbage collector need not look at it, neither
    now, which takes a fifth of the time, nor later."""
    with without_collection():
        yield
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes run tests, what takes long begins first."""
    if hasattr(config, "workerinput"):
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
