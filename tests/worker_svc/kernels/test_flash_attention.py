"""What torch's operator for FlashAttention is given: by it a kernel brings the attention of chunks."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch
from torch.nn.attention import current_flash_attention_impl

from tests.worker_svc.cuda.scene import ids, in_turn, make_runner, staggered
from tests.worker_svc.kernels.flash_stand_in import flash_kernel, flash_package
from tests.worker_svc.ragged import RaggedKernels
from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from worker_svc.kernels.chunk_scene import ChunkScene
from worker_svc.kernels.flash_attention import FlashAttention, activate, deactivate, dense_tables
from worker_svc.kernels.interface import Heads
from worker_svc.model import loader

CPU = torch.device("cpu")
SIZES = [
    [(0, 1)],
    [(15, 1), (0, 16), (16, 17)],
    [(5, 33), (0, 1), (15, 2), (16, 70)],
    [(300, 64), (40, 212)],
]


@pytest.fixture
def _kernel() -> Iterator[None]:
    with flash_kernel():
        yield


@torch.inference_mode()
@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("heads", [(4, 4), (7, 1), (6, 2)])
def test_chunks(sizes: list[tuple[int, int]], heads: tuple[int, int]) -> None:
    scene = ChunkScene(CPU, torch.float32, Heads(*heads), 16, sizes)
    torch.testing.assert_close(scene.step(FlashAttention()), scene.expected(), rtol=1e-5, atol=1e-5)


def test_short_tables_are_padded_with_blocks_of_the_cache() -> None:
    chunks = ChunkScene(CPU, torch.float32, Heads(1, 1), 8, [(0, 16), (20, 20), (0, 1)]).chunks
    first, second, third = chunks.blocks.split([1, 3, 1])
    tables = dense_tables(chunks)
    assert (tables.shape, tables.dtype) == ((3, 3), torch.int32)
    assert tables[0, 0] == first
    assert tables[1].tolist() == second.tolist()
    assert tables[2, 0] == third
    assert set(tables.flatten().tolist()) == set(chunks.blocks.tolist())


@torch.inference_mode()
@pytest.mark.usefixtures("_kernel")
def test_the_host_does_not_wait_for_the_device() -> None:
    for seed in range(4):
        with simulated_cuda(seed) as device:
            scene = ChunkScene(CUDA, torch.float32, Heads(4, 2), 16, SIZES[2])
            torch.cuda.set_sync_debug_mode("error")
            found = scene.step(FlashAttention(), layers=2)
            torch.cuda.set_sync_debug_mode("default")
            torch.testing.assert_close(found.cpu(), scene.expected().cpu(), rtol=1e-5, atol=1e-5)
            assert device.counts["launch: torch_attn::_varlen_attn_out"] == 2


@pytest.mark.usefixtures("_kernel")
def test_whole_steps(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    plans = list(staggered(3, 6))
    expected = ids(in_turn(make_runner(CPU), plans))
    monkeypatch.setattr(loader, "native_kernels", lambda *_, **__: None)
    monkeypatch.setattr(loader, "triton_kernels", lambda *_: RaggedKernels())
    monkeypatch.setattr(loader, "chunk_attention", lambda *_: FlashAttention())
    runner = make_runner(CPU, cuda_graphs=False)
    assert runner.kernels == "RaggedKernels, attention of chunks by FlashAttention 3, 0 CUDA graphs"
    with caplog.at_level(logging.INFO):
        assert ids(in_turn(runner, plans)) == expected
    assert caplog.text == ""  # torch has a line for each call


def test_without_its_package_nothing_is_active() -> None:
    with pytest.raises(ImportError, match="flash_attn_interface"):
        activate()
    assert current_flash_attention_impl() is None


def test_it_is_active_until_another_is_chosen() -> None:
    with flash_package():
        assert isinstance(activate(), FlashAttention)
        assert current_flash_attention_impl() == "FA3"
        deactivate()
        assert current_flash_attention_impl() is None
