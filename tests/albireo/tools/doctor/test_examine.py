"""What is examined, by the settings of the services."""

from __future__ import annotations

import pytest

from albireo.local.ports import free_port
from albireo.models import TINY
from albireo.tools.doctor.examine import examine


def test_the_redis_of_every_cell_is_examined(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = f"127.0.0.1:{free_port('127.0.0.1')}"
    monkeypatch.setenv("ALBIREO_GATEWAY_CELLS", f"redis://user:secret@{absent}/0")
    monkeypatch.setenv("ALBIREO_GATEWAY_MODEL", str(TINY))
    options = {"model": TINY, "redis_url": redis_url}
    [failed] = [
        finding
        for finding in examine(options, tp=1)
        if finding.check == "redis" and finding.level == "failure"
    ]
    assert absent in failed.found
    assert "secret" not in failed.found
