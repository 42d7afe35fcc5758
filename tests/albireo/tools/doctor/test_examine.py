"""What is examined, by the settings of the services."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.local.ports import free_port
from albireo.models import TINY
from albireo.tools.doctor.examine import examine
from albireo.tools.doctor.finding import Finding

ABSENT = f"127.0.0.1:{free_port('127.0.0.1')}"


@pytest.fixture
def findings(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[Finding]]:
    """By check, of a machine with a cell whose Redis is not there, and with a KV tier on disk."""
    monkeypatch.setenv("ALBIREO_GATEWAY_CELLS", f"redis://user:secret@{ABSENT}/0")
    monkeypatch.setenv("ALBIREO_GATEWAY_MODEL", str(TINY))
    found: dict[str, list[Finding]] = {}
    for finding in examine({"model": TINY, "redis_url": redis_url, "kv_disk": tmp_path / "kv"}, tp=1):
        found.setdefault(finding.check, []).append(finding)
    return found


def test_redis_and_disk_are_examined(findings: dict[str, list[Finding]], tmp_path: Path) -> None:
    """The Redis of every cell, and what the disk of a KV tier brings."""
    [failed] = [finding for finding in findings["redis"] if finding.level == "failure"]
    assert ABSENT in failed.found
    assert "secret" not in failed.found
    [disk], [use] = findings["kv disk"], findings["kv disk use"]
    assert str(tmp_path / "kv") in disk.found
    assert "1000 tokens take" in use.found
    assert list(tmp_path.iterdir()) == []
