"""Fixtures of the race tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from albireo.contract.plan import GroupShape
from tests.races.scene import Scene

MakeScene = Callable[..., Scene]


@pytest.fixture
def make_scene(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeScene]:
    """Builds scenes; a scheduler that died is an error of the test."""
    # Every test waits for the load that tells that all is over.
    monkeypatch.setattr("scheduler_svc.service.HOUSEKEEPING_SECONDS", 0.05)
    with ExitStack() as closing:

        def make(*, num_blocks: int = 64, max_seqs: int = 4, max_model_len: int = 256, **rest: Any) -> Scene:
            scene = Scene(redis_url, shape=GroupShape(num_blocks, max_seqs, max_model_len), **rest)
            closing.callback(scene.close)
            return scene

        yield make
