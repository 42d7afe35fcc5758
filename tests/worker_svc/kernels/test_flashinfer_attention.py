"""What FlashInfer is given, and in which order, on the simulated device. FlashInfer is a stand-in."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from tests.worker_svc.kernels import flashinfer_stand_in
from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from worker_svc.kernels import flashinfer_attention
from worker_svc.kernels.chunk_scene import ChunkScene
from worker_svc.kernels.flashinfer_attention import PLANS, FlashInferAttention
from worker_svc.kernels.interface import Heads

SEEDS = range(6)
HEADS, DIM = Heads(4, 2), 16
SIZES = [(0, 1)], [(5, 33), (0, 2), (15, 2)], [(16, 3), (0, 16)], [(40, 9)], [(3, 20), (0, 5)]
"""No multiple of PLANS: each buffer gets plans of all."""


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flashinfer", flashinfer_stand_in.module())
    monkeypatch.setattr(flashinfer_attention, "LEAST_BYTES", 1 << 10)


@torch.inference_mode()
def steps_far_ahead(seed: int) -> list[tuple[Tensor, Tensor]]:
    """What steps of several sizes bring and must bring, launched as fast as the host can."""
    with simulated_cuda(seed):
        attention = FlashInferAttention(CUDA, torch.float32, HEADS, DIM, multiprocessors=8)
        scenes = [ChunkScene(CUDA, torch.float32, HEADS, DIM, sizes) for sizes in SIZES]
        torch.cuda.set_sync_debug_mode("error")
        found = [scene.step(attention, layers=2) for scene in scenes * PLANS]
        torch.cuda.set_sync_debug_mode("default")
        return [(x.cpu(), scene.expected().cpu()) for x, scene in zip(found, scenes * PLANS, strict=True)]


@pytest.mark.parametrize("seed", SEEDS)
def test_chunks_of_steps_that_are_launched_ahead_of_the_device(seed: int) -> None:
    for found, expected in steps_far_ahead(seed):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_plan_that_overwrites_one_on_its_way_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above could fail."""

    class NeverWaited(flashinfer_attention._Turn):
        def __init__(self, wrapper: object) -> None:
            super().__init__(wrapper)
            monkeypatch.setattr(self.copied, "synchronize", lambda: None)

    monkeypatch.setattr(flashinfer_attention, "_Turn", NeverWaited)
    wrong = [
        seed for seed in SEEDS if any(not torch.allclose(*both, atol=1e-5) for both in steps_far_ahead(seed))
    ]
    assert wrong


@pytest.mark.parametrize(
    ("heads", "multiprocessors", "most"),
    [
        # What a plan of release 0.7.4 keeps at most for heads of 128 numbers, in MiB.
        (Heads(32, 8), 108, 54),
        (Heads(64, 8), 142, 141),
        (Heads(96, 8), 148, 224),
    ],
)
def test_the_workspace_holds_all_parts(heads: Heads, multiprocessors: int, most: float) -> None:
    size = flashinfer_attention.workspace_bytes(heads, 128, multiprocessors)
    assert most * 0.99 < size / (1 << 20) < most * 1.02


def test_without_it() -> None:
    sys.modules["flashinfer"] = None  # type: ignore[assignment]
    with pytest.raises(ImportError, match="flashinfer"):
        FlashInferAttention(CUDA, torch.float16, HEADS, DIM, multiprocessors=8)
