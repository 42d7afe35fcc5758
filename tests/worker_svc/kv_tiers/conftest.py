"""Tiers for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker_svc.kv_tiers.blocks import FRAMES, LAYOUT
from worker_svc.kv_tiers.disk import DiskTier
from worker_svc.kv_tiers.host import HostTier, host_storage
from worker_svc.kv_tiers.interface import Tier


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskTier]:
    tier = DiskTier.open(tmp_path / "kv", FRAMES * LAYOUT.block_bytes, LAYOUT)
    yield tier
    tier.close()


@pytest.fixture
def host() -> HostTier:
    return HostTier(host_storage(FRAMES * LAYOUT.block_bytes, LAYOUT, pinned=False))


@pytest.fixture(params=["host", "disk"])
def tier(request: pytest.FixtureRequest) -> Tier:
    made: Tier = request.getfixturevalue(request.param)
    return made
