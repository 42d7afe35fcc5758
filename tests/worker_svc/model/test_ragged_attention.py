"""How a model's steps call the attention of chunks that has been chosen."""

from __future__ import annotations

import pytest
import torch

from albireo.contract.plan import Plan
from tests.worker_svc.cuda.scene import ids, in_turn, make_runner, staggered
from tests.worker_svc.ragged import RaggedKernels
from worker_svc.kernels.chunk_kernel import ChunkKernel
from worker_svc.kernels.interface import AttendChunks, Chunks
from worker_svc.model import loader
from worker_svc.model.sdpa import SdpaAttention

CPU = torch.device("cpu")


class Counting(ChunkKernel):
    """Keeps what it has prepared."""

    def __init__(self) -> None:
        super().__init__(RaggedKernels(), "counting")
        self.steps: list[Chunks] = []

    def of_step(self, chunks: Chunks) -> AttendChunks:
        self.steps.append(chunks)
        return super().of_step(chunks)


@pytest.fixture
def plans() -> list[Plan]:
    return list(staggered(3, 6))


@pytest.fixture
def expected(plans: list[Plan]) -> list[list[int]]:
    return ids(in_turn(make_runner(CPU), plans))


@pytest.fixture
def _triton(expected: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels with ragged block tables, from here on."""
    monkeypatch.setattr(loader, "native_kernels", lambda *_, **__: None)
    monkeypatch.setattr(loader, "triton_kernels", lambda *_: RaggedKernels())


@pytest.mark.usefixtures("_triton")
def test_what_layers_share_is_prepared_once_a_step(
    plans: list[Plan], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = Counting()
    monkeypatch.setattr(loader, "chunk_attention", lambda *_: attention)
    runner = make_runner(CPU, cuda_graphs=False)
    assert runner.config.num_layers > 2
    assert ids(in_turn(runner, plans)) == expected
    chunks = [[chunk.count for chunk in plan.chunks] for plan in plans if plan.chunks]
    assert [list(step.counts) for step in attention.steps] == chunks


@pytest.mark.usefixtures("_triton")
def test_where_none_is_right_torchs_operations_run(
    plans: list[Plan], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "chunk_attention", lambda *_: None)
    runner = make_runner(CPU)
    assert isinstance(runner._model.attention.paged, SdpaAttention)
    assert runner.kernels == "RaggedKernels, attention by torch, 0 CUDA graphs"
    assert ids(in_turn(runner, plans)) == expected
