"""Options of ``albireo calibrate``."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from albireo.cli import app
from albireo.planning.calibration import calibrate
from albireo.planning.calibration.measure import Setting
from worker_svc.cost.device import Tier

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The command sets handlers for the whole process."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def _refusal(*options: str) -> str:
    result = CliRunner().invoke(app, ["calibrate", *options], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    return result.output


@pytest.mark.parametrize("degrees", ["", "two", "0", "1,65", "1;2"])
def test_tp_degrees_are_a_list_of_numbers(degrees: str, tmp_path: Path) -> None:
    output = _refusal("--tp", degrees, "--output", str(tmp_path / "device.toml"))
    assert "TP degrees are numbers from 1 to 64, such as 1,2" in output


def test_a_degree_that_the_model_cannot_be_divided_by_is_refused(tmp_path: Path) -> None:
    output = _refusal("--tp", "3", "--output", str(tmp_path / "device.toml"))
    assert "cannot be divided by a TP degree of 3" in output


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    output = _refusal("--output", str(tmp_path / "missing" / "device.toml"))
    assert "--output" in output
    assert "No such file or directory" in output


def test_a_disk_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    output = _refusal("--kv-disk", str(missing), "--output", str(tmp_path / "device.toml"))
    assert f"--kv-disk {missing}: No such file or directory" in output.replace("\n", "")


def test_the_disk_is_measured_for_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Tier] = []

    def stopped(*_: Any, tiers: tuple[Tier, ...], **__: Any) -> None:
        found.extend(tiers)
        raise RuntimeError("enough")

    monkeypatch.setattr(calibrate, "calibrate", stopped)
    output = tmp_path / "device.toml"
    CliRunner().invoke(app, ["calibrate", "--kv-disk", str(tmp_path), "--output", str(output)])
    [disk] = found
    assert (disk.name, disk.gib) == ("disk", 8)
    assert 1e-3 < disk.write_gb_per_second < 1e3  # from an SD card to memory
    assert 1e-3 < disk.read_gb_per_second < 1e3
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError("a request failed")

    monkeypatch.setattr(calibrate, "calibrate", failing)
    result = CliRunner().invoke(app, ["calibrate", "--output", str(tmp_path / "device.toml")])
    assert (result.exit_code, result.stderr.strip()) == (1, "albireo: a request failed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_it(number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(setting: Setting, *_: Any, **__: Any) -> None:
        os.kill(os.getpid(), number)
        assert setting.stop.wait(5)
        raise RuntimeError("stopped within a load")

    monkeypatch.setattr(calibrate, "calibrate", interrupted)
    result = CliRunner().invoke(app, ["calibrate", "--output", str(tmp_path / "device.toml")])
    assert (result.exit_code, result.stderr.strip()) == (130, "albireo: stopped; no device file is written")
    assert list(tmp_path.iterdir()) == []
