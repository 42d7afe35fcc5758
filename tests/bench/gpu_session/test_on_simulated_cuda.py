"""What a session measures on CUDA, on the simulated device: it runs, and energy is of the decode steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from albireo.planning.calibration import limits
from albireo.v1 import control_pb2 as control
from bench.gpu_session.model import Loads, Measurement
from bench.gpu_session.shapes import write_shape
from bench.sampling import measure as sampling
from tests.worker_svc.simulated_cuda.device import CUDA, device
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.telemetry.gpu import GpuReader

LOADS = Loads(rows=(3,), prompt=20, steps=6, prefill=40, mixed=(2, 24), rounds=2)
JOULES = 9.0
"""That the GPU uses between two readings, which are before and after all decode steps of a round."""


class Reader:
    """Of a GPU with an energy counter."""

    def __init__(self) -> None:
        self._joules = 100.0

    def read(self) -> control.Gpu:
        self._joules += JOULES
        return control.Gpu(joules=self._joules)


@pytest.fixture(autouse=True)
def _simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "READ_BYTES", {"cuda": 1 << 22})
    monkeypatch.setattr(limits, "SIDE", {"cuda": 128})
    monkeypatch.setattr(GpuReader, "of", lambda device, rank: Reader())
    torch.set_num_threads(1)
    with simulated_cuda(2):
        yield


def test_steps_and_the_energy_of_decoding_are_measured(tmp_path: Path) -> None:
    write_shape("tiny", tmp_path)
    measurement = Measurement(tmp_path, CUDA, LOADS)
    assert measurement.runner.kernels.endswith(", 12 CUDA graphs")  # 3 buckets; 3 ways to draw in each
    found = measurement.decode(3)
    assert found["steps"] == LOADS.rounds * LOADS.steps
    assert found["joules_per_output_token"] == pytest.approx(JOULES / (3 * LOADS.steps))
    assert found["watts"] > 0
    for found, rows in ((measurement.prefill(), 0), (measurement.mixed(), LOADS.mixed[0])):
        assert (found["rows"], found["steps"]) == (rows, 3 * LOADS.rounds)
        assert found["share_of_limit"] > 0
        assert 0 < found["launch_ms"] < found["step_ms"]
        assert found["saving_ms"] == max(0, found["device_ms"] - found["device_ahead_ms"])


def test_a_step_that_begins_before_all_is_launched_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shape("tiny", tmp_path)
    measurement = Measurement(tmp_path, CUDA, LOADS)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: None)
    monkeypatch.setattr(device().policy, "progress", 1.0)  # work runs as soon as it is launched
    assert "saving_ms" not in measurement.prefill()


@pytest.mark.parametrize("controls", sampling.CONTROLS)
def test_sampling_is_measured(controls: str) -> None:
    case = sampling.Case(controls, 3, 700, "bfloat16")
    with torch.inference_mode():
        found = sampling._measure(case, TPGroup(), 2, CUDA)
    assert min(found.driver, found.read, found.sort) > 0
    assert found.parallel is None
