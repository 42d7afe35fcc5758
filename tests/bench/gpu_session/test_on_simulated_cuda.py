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
from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.telemetry.gpu import GpuReader

LOADS = Loads(rows=(3,), prompt=20, steps=6, prefill=40, rounds=2)
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
    assert measurement.runner.kernels.endswith(", 3 CUDA graphs")
    found = measurement.decode(3)
    assert found["steps"] == LOADS.rounds * LOADS.steps
    assert found["joules_per_output_token"] == pytest.approx(JOULES / (3 * LOADS.steps))
    assert found["watts"] > 0
    assert measurement.prefill()["share_of_limit"] > 0


@pytest.mark.parametrize("controls", sampling.CONTROLS)
def test_sampling_is_measured(controls: str) -> None:
    case = sampling.Case(controls, 3, 700, "bfloat16")
    with torch.inference_mode():
        found = sampling._measure(case, TPGroup(), 2, CUDA)
    assert min(found.driver, found.read, found.sort) > 0
    assert found.parallel is None
