"""Files of devices: the presets, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker_svc.cost.device import PRESETS, Device

H100 = (PRESETS / "h100.toml").read_text(encoding="utf-8")
NAMES = sorted(path.stem for path in PRESETS.glob("*.toml"))


def test_there_is_a_preset_of_each_kind_that_the_planner_knows() -> None:
    assert NAMES == ["a100", "b200", "h100", "h100-pcie", "h100-vllm", "h200", "l40s"]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_names_its_source_its_power_and_its_link(name: str) -> None:
    device = Device.load(name)
    assert device.name == name
    assert "data sheet" in device.source
    assert device.link is not None
    assert 0 < device.idle_watts < device.watts
    assert device.reserved_gib < device.memory_gib


@pytest.mark.parametrize("name", NAMES)
def test_a_device_survives_being_written_as_plain_data(name: str) -> None:
    device = Device.load(name)
    assert Device.model_validate(device.model_dump(mode="json")) == device


def test_a_file_may_say_where_its_efficiencies_were_measured(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    table = '[calibration]\nmachine = "m"\ndate = "2026-01-01"\n'
    residual = '[[calibration.residuals]]\nwhat = "T3"\nmeasurements = 9\nmedian = 0.01\nworst = 0.05\n'
    path.write_text(H100 + table + residual)
    calibration = Device.load(str(path)).calibration
    assert calibration is not None
    assert calibration.machine == "m"
    assert calibration.residuals[0].worst == 0.05


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (H100.replace("tflops", "teraflops"), "teraflops"),
        (H100.replace("gb_per_second = 3350", "gb_per_second = 0"), "gb_per_second"),
        (
            H100.replace("memory_gib = 79.6", "memory_gib = inf"),
            "memory_gib: Input should be a finite number",
        ),
        (H100.replace("overlap = 4", "overlap = 0.5"), "efficiency.0.overlap"),
        (H100.replace("[[efficiency]]\ntp = 1", "[[efficiency]]\ntp = 2"), "needs one table with tp = 1"),
        (H100.replace("[[host]]\ntp = 1", "[[host]]\ntp = 1\n[[host]]\ntp = 1"), r"not \[1, 1\]"),
        (H100.replace("[link]", "[link"), "line"),
    ],
)
def test_an_error_in_a_file_is_one_line_that_names_the_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "device.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=named) as raised:
        Device.load(str(path))
    assert str(raised.value).startswith(f"device {path}: ")
    assert "\n" not in str(raised.value)


def test_the_host_of_vllm_is_on_the_same_device_as_ours() -> None:
    ours, theirs = Device.load("h100"), Device.load("h100-vllm")
    same = {"name", "source", "host"}
    assert theirs.model_dump(exclude=same) == ours.model_dump(exclude=same)
    (host,) = theirs.host
    milliseconds = [256 * part.row_us / 1e3 for part in (host.t1, host.t2, host.t5)]
    assert milliseconds == pytest.approx([4.0, 4.0, 3.5], abs=0.05)
