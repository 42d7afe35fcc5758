"""Weights in 8 bits on the simulated device: prompts, and decode steps as CUDA graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.worker_svc.cuda.scene import staggered
from tests.worker_svc.cuda.test_gpu_quantized import KINDS, STORED, bundled, check_steps
from worker_svc.model.formats import WeightFormat


@KINDS
@STORED
def test_steps_bring_nearly_what_floats_bring(
    cuda: torch.device, weights: WeightFormat, stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = bundled(tmp_path / "model", weights if stored else "dtype")
    check_steps(cuda, directory, weights, list(staggered(2, 5)), monkeypatch)
