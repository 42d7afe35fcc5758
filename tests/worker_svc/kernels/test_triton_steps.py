"""Whole steps of the bundled model by Triton's kernels bring the ids of the native ones."""

from __future__ import annotations

import pytest
import torch

from tests.worker_svc.cuda.scene import ids, in_turn, make_runner, staggered
from tests.worker_svc.kernels.triton_scene import TritonScene
from worker_svc.model import loader


def test_prompts_and_decoding_rows(triton_scene: TritonScene, monkeypatch: pytest.MonkeyPatch) -> None:
    plans, cpu = list(staggered(2, 3)), torch.device("cpu")
    expected = ids(in_turn(make_runner(cpu), plans))
    monkeypatch.setattr(loader, "native_kernels", lambda *_, **__: None)
    monkeypatch.setattr(loader, "triton_kernels", lambda *_: triton_scene.kernels)
    assert ids(in_turn(make_runner(cpu, cuda_graphs=False), plans)) == expected
