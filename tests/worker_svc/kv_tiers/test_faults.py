"""Faults are counted each, and logged now and then."""

from __future__ import annotations

import logging

import pytest

from worker_svc.kv_tiers import faults
from worker_svc.kv_tiers.faults import Faults


def test_each_block_is_counted_and_each_kind_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    found = Faults(logging.getLogger("test"), "disk")
    for _ in range(5):
        found.add("checksum", "frame 7")
    found.add("write", "No space left on device", blocks=3)
    assert found.counts == {"checksum": 5, "write": 3}
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "KV tier disk: checksum: frame 7",
        "KV tier disk: write: No space left on device",
    ]


def test_a_later_line_says_how_many_had_none(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Faults(logging.getLogger("test"), "disk")
    for _ in range(3):
        found.add("checksum", "frame 7")
    monkeypatch.setattr(faults, "LOG_SECONDS", 0.0)
    found.add("checksum", "frame 7")
    assert [record.getMessage().split("(")[1].split()[0] for record in caplog.records] == ["1", "3"]
