"""Fixtures of the race tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from albireo.contract.plan import GroupShape
from albireo.virtual.clock import VirtualClock
from tests.races.cluster import VirtualCluster
from tests.races.scene import Scene

MakeScene = Callable[..., Scene]


@pytest.fixture
def make_scene() -> Iterator[MakeScene]:
    """Builds scenes in virtual time; a scheduler that died is an error of the test."""
    with VirtualClock() as clock, ExitStack() as closing:

        def make(*, num_blocks: int = 64, max_seqs: int = 4, max_model_len: int = 256, **rest: Any) -> Scene:
            shape = GroupShape(num_blocks, max_seqs, max_model_len)
            scene = Scene(VirtualCluster(clock), shape=shape, **rest)
            closing.callback(scene.close)
            return scene

        yield make
