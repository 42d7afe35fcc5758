"""Every attention of chunks that this machine has brings what torch's operations bring."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from worker_svc.kernels.choice import triton_kernels
from worker_svc.kernels.chunk_choice import CHECKED, TOLERANCE, Candidate, chunk_attention, libraries
from worker_svc.kernels.chunk_kernel import ChunkKernel
from worker_svc.kernels.chunk_scene import ChunkScene
from worker_svc.kernels.interface import ChunkAttention, Heads, RaggedAttention

pytestmark = pytest.mark.gpu(
    "compiled kernels and libraries: tests/worker_svc/kernels has stand-ins for these"
)

SIZES = [[(0, 1)], [(15, 1), (0, 16), (16, 17)], [(1000, 70), (3, 20)], [(0, 1000)], *CHECKED]
SHAPES = [(Heads(32, 8), 128), (Heads(14, 2), 64), (Heads(4, 1), 128)]
NAMES = "Triton", "FlashAttention 3", "FlashInfer"


def kernels_for(cuda: torch.device, dtype: torch.dtype, heads: Heads, dim: int) -> RaggedAttention:
    kernels = triton_kernels(cuda, dtype, heads.queries * dim, heads, dim)
    assert kernels is not None
    return kernels


@pytest.fixture(params=SHAPES, ids=str)
def shape(request: pytest.FixtureRequest) -> tuple[Heads, int]:
    found: tuple[Heads, int] = request.param
    return found


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture(params=NAMES)
def attention(
    request: pytest.FixtureRequest, cuda: torch.device, dtype: torch.dtype, shape: tuple[Heads, int]
) -> Iterator[ChunkAttention]:
    own = ChunkKernel(kernels_for(cuda, dtype, *shape), "Triton")
    there = [Candidate(own.name, lambda: own), *libraries(cuda, dtype, *shape)]
    found = next((candidate for candidate in there if candidate.name == request.param), None)
    if found is None:
        pytest.skip(f"{request.param} is not installed, or not for this GPU")
    yield found.open()
    found.close()


@torch.inference_mode()
def test_chunks(
    cuda: torch.device, dtype: torch.dtype, shape: tuple[Heads, int], attention: ChunkAttention
) -> None:
    for sizes in SIZES:
        scene = ChunkScene(cuda, dtype, *shape, sizes)
        off = (scene.step(attention).float() - scene.expected()).abs().max()
        assert float(off) <= TOLERANCE[dtype]


@torch.inference_mode()
def test_steps_far_ahead_of_the_device(
    cuda: torch.device, dtype: torch.dtype, shape: tuple[Heads, int], attention: ChunkAttention
) -> None:
    """The host waits for nothing that torch knows to wait, and no step reads what the next prepares."""
    scenes = [ChunkScene(cuda, dtype, *shape, sizes) for sizes in SIZES]
    expected = [scene.expected() for scene in scenes]
    for scene in scenes:
        scene.step(attention)  # compiles, and loads what a kernel needs
    torch.cuda.synchronize(cuda)
    torch.cuda._sleep(100_000_000)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [scene.step(attention, layers=2) for scene in scenes * 3]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for out, right in zip(found, expected * 3, strict=True):
        assert float((out.float() - right).abs().max()) <= TOLERANCE[dtype]


def test_one_is_chosen(
    cuda: torch.device, dtype: torch.dtype, shape: tuple[Heads, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = chunk_attention(cuda, dtype, *shape, kernels_for(cuda, dtype, *shape))
    assert found is not None
    there = libraries(cuda, dtype, *shape)
    lines = [message for message in caplog.messages if message.startswith("attention of chunks by ")]
    assert len(lines) == bool(there)
    assert all(line.startswith(f"attention of chunks by {found.name}: ") for line in lines)
    for candidate in there:
        candidate.close()
