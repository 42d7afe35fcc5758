"""By which attention a rank's chunks attend: the fastest that is right on its device, and that it says so."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.attention import current_flash_attention_impl, restore_flash_attention_impl

from tests.worker_svc.kernels import flashinfer_stand_in
from tests.worker_svc.kernels.flash_stand_in import flash_kernel, flash_package
from tests.worker_svc.kernels.triton_scene import TritonScene
from tests.worker_svc.ragged import RaggedKernels
from tests.worker_svc.simulated_cuda.device import CUDA
from tests.worker_svc.simulated_cuda.installed import simulated_cuda
from tests.worker_svc.simulated_cuda.kernels import SimulatedKernels
from worker_svc.kernels import chunk_choice, flashinfer_attention
from worker_svc.kernels.chunk_choice import TOLERANCE, Candidate, chunk_attention, fastest, libraries
from worker_svc.kernels.chunk_kernel import ChunkKernel
from worker_svc.kernels.chunk_scene import ChunkScene
from worker_svc.kernels.interface import AttendChunks, ChunkAttention, Chunks, Heads

CPU, HEADS, DIM = torch.device("cpu"), Heads(4, 2), 16
SIZES = (5, 33), (20, 17)
OWN = ChunkKernel(RaggedKernels(), "own")


class Changed:
    """Right attention whose outputs ``change`` spoils, or which it leaves without them."""

    name = "changed"

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        self._change = change

    def of_step(self, chunks: Chunks) -> AttendChunks:
        attend = OWN.of_step(chunks)

        def changed(q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
            attend(q, keys, values, out)
            self._change(out)

        return changed


class OneTokenMore:
    """A mask that is wrong by one token: each row sees the one behind it."""

    name = "one token more"

    def of_step(self, chunks: Chunks) -> AttendChunks:
        positions = (chunks.positions + 1).clamp(max=max(chunks.contexts) - 1)
        return OWN.of_step(replace(chunks, positions=positions))


class OtherBlock:
    """Two blocks of a table in the wrong order."""

    name = "other block"

    def of_step(self, chunks: Chunks) -> AttendChunks:
        blocks = chunks.blocks.clone()
        blocks[:2] = chunks.blocks[:2].flip(0)
        return OWN.of_step(replace(chunks, blocks=blocks))


def scene(dtype: torch.dtype = torch.float32) -> ChunkScene:
    return ChunkScene(CPU, dtype, HEADS, DIM, SIZES)


def choose(candidates: dict[str, tuple[ChunkAttention, float]], closed: list[str]) -> ChunkAttention | None:
    """Candidates by name, with the seconds that they take."""
    seconds = {id(attention): time for attention, time in candidates.values()}

    def candidate(name: str, attention: ChunkAttention) -> Candidate:
        return Candidate(name, lambda: attention, lambda: closed.append(name))

    listed = [candidate(name, attention) for name, (attention, _) in candidates.items()]
    return fastest(listed, [scene()], lambda attention: seconds[id(attention)])


def test_the_fastest_is_taken_and_all_times_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    quick, closed = ChunkKernel(RaggedKernels(), "quick"), list[str]()
    with caplog.at_level(logging.INFO):
        found = choose({"own": (OWN, 1.2e-3), "quick": (quick, 3.456e-4), "slow": (OWN, 5e-3)}, closed)
    assert found is quick
    assert closed == ["own", "slow"]
    assert "attention of chunks by quick: quick 0.346 ms, own " in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        Changed(lambda out: out[-1].mul_(1.5)),
        Changed(lambda out: out[3].fill_(torch.nan)),
        Changed(lambda out: out.zero_()),
        OneTokenMore(),
        OtherBlock(),
    ],
)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_what_is_wrong_is_not_taken(
    wrong: ChunkAttention, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    closed = list[str]()
    candidates = [
        Candidate("own", lambda: OWN),
        Candidate("wrong", lambda: wrong, lambda: closed.append("wrong")),
    ]
    found = fastest(candidates, [scene(dtype)], lambda attention: 1.0 if attention is OWN else 0.5)
    assert found is OWN
    assert closed == ["wrong"]
    assert "no attention of chunks by wrong: ValueError results are off by " in caplog.text


def test_all_scenes_must_be_right(caplog: pytest.LogCaptureFixture) -> None:
    wrong = Changed(lambda out: out[-1].mul_(1.5) if len(out) == 4 else None)
    scenes = [scene(), ChunkScene(CPU, torch.float32, HEADS, DIM, [(90, 4)])]
    for some, right in ((scenes[:1], True), (scenes, False)):
        assert (fastest([Candidate("one", lambda: wrong)], some, lambda _: 1.0) is wrong) == right


@pytest.mark.parametrize("kind", [ImportError, RuntimeError, TypeError, OSError])
def test_what_cannot_be_opened_is_not_taken(kind: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    closed = list[str]()

    def cannot() -> ChunkAttention:
        raise kind("no compiler\nand much more")

    candidates = [Candidate("other", cannot, lambda: closed.append("other")), Candidate("own", lambda: OWN)]
    assert fastest(candidates, [scene()], lambda _: 1.0) is OWN
    assert closed == []
    assert f"no attention of chunks by other: {kind.__name__} no compiler" in caplog.text
    assert "much more" not in caplog.text


def test_what_fails_when_it_attends_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Tensor) -> None:
        raise RuntimeError("no kernel image")

    closed = list[str]()
    assert choose({"failing": (Changed(fail), 0.1), "own": (OWN, 1.0)}, closed) is OWN
    assert closed == ["failing"]
    assert "no attention of chunks by failing: RuntimeError no kernel image" in caplog.text


def test_where_all_are_wrong_none_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    closed = list[str]()
    assert choose({"one": (OtherBlock(), 1.0), "two": (OneTokenMore(), 1.0)}, closed) is None
    assert closed == ["one", "two"]
    assert "torch's operations run in its place" in caplog.text


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_tritons_kernel_is_right(triton_scene: TritonScene, dtype: torch.dtype) -> None:
    triton = ChunkKernel(triton_scene.kernels, "Triton")
    assert fastest([Candidate("Triton", lambda: triton)], [scene(dtype)], lambda _: 1.0) is triton


def test_where_no_library_is_installed_nothing_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    class Unused(RaggedKernels):
        def chunks(self, *_: Tensor) -> None:
            raise AssertionError("nothing needs to be tried")

    with caplog.at_level(logging.INFO):
        found = chunk_attention(CUDA, torch.bfloat16, HEADS, DIM, Unused())
    assert isinstance(found, ChunkKernel)
    assert caplog.text == ""


@pytest.fixture
def _libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both are installed, on the simulated device, and tried with small chunks."""
    monkeypatch.setitem(sys.modules, "flashinfer", flashinfer_stand_in.module())
    monkeypatch.setattr(flashinfer_attention, "LEAST_BYTES", 1 << 10)
    properties = SimpleNamespace(multi_processor_count=8)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    for name, value in {"CHECKED": (SIZES, SIZES), "TIMED": SIZES, "LAYERS": 2}.items():
        monkeypatch.setattr(chunk_choice, name, value)
    with flash_package(), flash_kernel(), simulated_cuda(2):
        yield
        restore_flash_attention_impl(_raise_warn=False)


@pytest.mark.usefixtures("_libraries")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_libraries_are_tried_next_to_the_own_kernels(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = chunk_attention(CUDA, dtype, HEADS, DIM, SimulatedKernels())
    assert found is not None
    *trying, line = caplog.messages
    assert len(trying) == 3
    assert line.startswith(f"attention of chunks by {found.name}: {found.name} ")
    assert line.count(" ms") == 3


@pytest.mark.usefixtures("_libraries")
@pytest.mark.parametrize("name", ["Triton", "FlashAttention 3", "FlashInfer"])
def test_only_what_is_chosen_stays_in_the_process(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def layer_seconds(attention: ChunkAttention, _: ChunkScene) -> float:
        return 1.0 if attention.name == name else 2.0

    monkeypatch.setattr(chunk_choice, "_layer_seconds", layer_seconds)
    found = chunk_attention(CUDA, torch.bfloat16, HEADS, DIM, SimulatedKernels())
    assert found is not None
    assert found.name == name
    assert current_flash_attention_impl() == ("FA3" if name == "FlashAttention 3" else None)


@pytest.mark.usefixtures("_libraries")
def test_libraries_are_for_half_precision_on_the_devices_that_they_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def names(device: torch.device, dtype: torch.dtype) -> list[str]:
        return [candidate.name for candidate in libraries(device, dtype, HEADS, DIM)]

    assert names(CUDA, torch.bfloat16) == ["FlashAttention 3", "FlashInfer"]
    assert names(CUDA, torch.float32) == []
    assert names(CPU, torch.bfloat16) == []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert names(CUDA, torch.float16) == ["FlashInfer"]
