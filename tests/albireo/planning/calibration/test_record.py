"""The device file of a calibration."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from albireo.planning.calibration.record import residual_table, write_device
from tests.albireo.planning.calibration.measurements import DEVICE
from worker_svc.cost.device import PRESETS, Calibration, Device, Residual, Tier, Variation

CALIBRATED = DEVICE.model_copy(
    update={
        "tier": (Tier(name="disk", gib=8, read_gb_per_second=0.75, write_gb_per_second=0.5),),
        "variation": (Variation(step_spread=0.09, slow_spread=0.12, slow_seconds=1.5),),
        "calibration": Calibration(
            machine='A "quoted" name, 2 cores \\ é',
            date="2026-01-31",
            model="tiny",
            setup="torch 2",
            residuals=(
                Residual(what="T3 decode, tp 1", measurements=40, median=0.0123, worst=0.25, noise=0.031),
                Residual(what="T4 rank 0, tp 1", measurements=3, median=0.5, worst=2.0),
            ),
        ),
    }
)


@pytest.mark.parametrize(
    "device", [CALIBRATED, DEVICE, *(Device.load(file.stem) for file in sorted(PRESETS.glob("*.toml")))]
)
def test_a_written_device_is_read_back_as_it_was(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    write_device(device, path)
    assert Device.load(str(path)) == device


def test_numbers_are_written_with_six_digits(tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    write_device(DEVICE.model_copy(update={"memory_gib": 1 / 3}), path)
    assert Device.load(str(path)).memory_gib == 0.333333


def test_the_table_shows_each_residual_in_percent() -> None:
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as found:
        console.print(residual_table(CALIBRATED, "device.toml"))
    text = found.get()
    assert "T3 decode, tp 1" in text
    assert "1.2 %" in text
    assert "200.0 %" in text
    assert "3.1 %" in text
    assert 'A "quoted" name' in text
    assert "varies by 9.0% from step to step, and by 12.0% for about 1.5 s" in " ".join(text.split())
