"""Fixtures of the race tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from albireo.contract.plan import GroupShape
from albireo.virtual.clock import VirtualClock
from tests.races.cluster import Cluster, RedisCluster, VirtualCluster
from tests.races.scene import Scene

MakeScene = Callable[..., Scene]

on_both = pytest.mark.parametrize("make_scene", ["virtual", "redis"], indirect=True)
"""For tests whose race also runs on a real Redis, in real time."""


@pytest.fixture
def make_scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeScene]:
    """Builds scenes, in virtual time unless ``on_both``; a scheduler that died is an error of the test."""
    with ExitStack() as closing:
        if getattr(request, "param", "virtual") == "virtual":
            cluster: Cluster = VirtualCluster(closing.enter_context(VirtualClock()))
        else:
            cluster = RedisCluster(request.getfixturevalue("redis_url"))
            # Every test waits for the load that shows that all is over.
            monkeypatch.setattr("scheduler_svc.service.HOUSEKEEPING_SECONDS", 0.05)

        def make(*, num_blocks: int = 64, max_seqs: int = 4, max_model_len: int = 256, **rest: Any) -> Scene:
            scene = Scene(cluster, shape=GroupShape(num_blocks, max_seqs, max_model_len), **rest)
            closing.callback(scene.close)
            return scene

        yield make
