"""A real calibration, of a group of the bundled model on this machine."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from albireo.checkpoint.files import CheckpointError
from albireo.models import TINY
from albireo.planning.calibration.all_reduce import measure_all_reduce
from albireo.planning.calibration.calibrate import calibrate
from albireo.planning.calibration.measure import Setting
from albireo.planning.calibration.record import write_device
from worker_svc.cost.load import load_cost_model
from worker_svc.cost.memory import kv_blocks
from worker_svc.cost.work import StepWork
from worker_svc.model.config import ModelConfig

SETTING = Setting(TINY, "cpu", "bfloat16", max_seqs=16)


@pytest.mark.slow
def test_a_quick_calibration_writes_a_device_that_predicts_steps(tmp_path: Path) -> None:
    lines: list[str] = []
    device = calibrate(SETTING, [1], quick=True, machine="here", report=lines.append)
    assert any("16 rows" in line for line in lines)
    path = tmp_path / "device.toml"
    write_device(device, path)

    config = ModelConfig.from_dir(TINY)
    cost = load_cost_model(str(path), config, 1)
    decode = cost.forward_seconds(StepWork(decodes=8, context=400, greedy=8))
    prefill = cost.forward_seconds(StepWork(prefill=512, prefill_pairs=131_000, greedy=1))
    assert 1e-4 < decode < 1  # a step of this model takes milliseconds, or tens of them on a busy machine
    assert decode < prefill < 30
    sampling = cost.sampling_seconds(StepWork(decodes=8, context=400, drawn=8), parallel=False)
    assert 1e-5 < sampling < 1
    host = cost.host(StepWork(decodes=8, context=400, greedy=8))
    assert all(1e-6 < seconds < 1 for seconds in (host.t1, host.t2, host.t5))
    assert kv_blocks(device, config, 1, max_seqs=16) > 100
    assert device.kind == "cpu"

    record = device.calibration
    assert record is not None
    assert (record.machine, record.model) == ("here", TINY.name)
    assert {residual.what for residual in record.residuals} == {
        f"{part}, tp 1" for part in ("T3 decode", "T3 prefill", "T3 mixed", "T4 rank 0")
    }
    assert all(math.isfinite(residual.worst) for residual in record.residuals)


def test_all_reduces_of_two_ranks_have_a_latency_and_a_bandwidth() -> None:
    latency, bandwidth = measure_all_reduce("cpu", 2, hidden=64)
    assert 1e-7 < latency < 1
    assert bandwidth > 1e5


def test_nothing_more_is_measured_once_it_is_to_stop() -> None:
    lines: list[str] = []
    stop = threading.Event()
    stop.set()
    with pytest.raises(RuntimeError, match="stopped"):
        calibrate(replace(SETTING, stop=stop), [1], quick=True, machine="here", report=lines.append)
    assert lines == []


def test_a_degree_that_the_model_cannot_be_divided_by_is_refused_before_anything_is_measured() -> None:
    lines: list[str] = []
    with pytest.raises(CheckpointError, match="TP degree of 3"):
        calibrate(SETTING, [3], quick=True, machine="here", report=lines.append)
    assert lines == []
