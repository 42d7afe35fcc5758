"""Checkpoints of every family with requests whose right answers are known, and groups that have run them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.worker_svc.cases import Case, make_case
from tests.worker_svc.checkpoints import FAMILIES
from worker_svc.kv_tiers import limits


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """More threads only make models of this size slower, and a second core has other tests to run."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """One case for each family."""
    root = Path(tmp_path_factory.mktemp("checkpoints"))
    return {name: make_case(family, root / name) for name, family in FAMILIES.items()}


@pytest.fixture
def by_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetches come in pieces of some layers, although they are small."""
    monkeypatch.setattr(limits, "WHOLE_BYTES", 0)
