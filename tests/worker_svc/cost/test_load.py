"""Which cost model a name or a file means."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker_svc.cost.shapes import QWEN_32B
from worker_svc.cost import device, fixed
from worker_svc.cost.fixed import FixedCost
from worker_svc.cost.load import load_cost_model
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.work import StepWork


def test_a_device_and_explicit_times_are_kept_apart(tmp_path: Path) -> None:
    for name, kind, folder in (
        ("h100", PhysicalCost, device.PRESETS),
        ("paper-32b", FixedCost, fixed.PRESETS),
    ):
        path = tmp_path / f"copy-of-{name}.toml"
        path.write_bytes((folder / f"{name}.toml").read_bytes())
        for asked in (name, str(path)):
            model = load_cost_model(asked, QWEN_32B, 4)
            assert isinstance(model, kind)
            assert (model.name, model.tp) == (name, 4)


def test_explicit_times_give_the_papers_step_and_leave_the_host_out() -> None:
    model, work = load_cost_model("paper-32b", QWEN_32B, 4), StepWork(decodes=256, penalized=256)
    assert model.forward_seconds(work) == pytest.approx(0.021)
    assert model.sampling_seconds(work, parallel=True) == pytest.approx(0.0017)
    assert model.host(work) == model.host(StepWork())
    assert model.forward_seconds(StepWork()) == model.sampling_seconds(StepWork(), parallel=True) == 0


def test_float32_takes_twice_the_reading() -> None:
    work = StepWork(decodes=1, context=1000)
    half, whole = (load_cost_model("h100", QWEN_32B, 1, dtype_bytes=size) for size in (2, 4))
    assert isinstance(half, PhysicalCost)
    assert isinstance(whole, PhysicalCost)
    assert whole.forward_terms(work)["kv"] == pytest.approx(2 * half.forward_terms(work)["kv"])


def test_a_name_that_is_not_there_is_answered_with_all_presets() -> None:
    with pytest.raises(ValueError, match=r"cost model 'h1': no such file; presets: .*h100.*paper-32b"):
        load_cost_model("h1", QWEN_32B, 1)


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cost model") as raised:
        load_cost_model(str(path), QWEN_32B, 1)
    assert "\n" not in str(raised.value)
