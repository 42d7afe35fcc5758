"""Which kernels a rank on CUDA chooses, and that it says so."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from worker_svc.kernels import choice
from worker_svc.kernels.choice import triton_kernels
from worker_svc.kernels.interface import Heads

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HIDDEN, HEADS = 896, Heads(14, 2)


def chosen(dtype: torch.dtype = torch.bfloat16, dim: int = 64, device: torch.device = CUDA) -> Any:
    return triton_kernels(device, dtype, HIDDEN, HEADS, dim)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU whose tensors are on the CPU, for kernels in Triton's interpreter."""
    pytest.importorskip("triton")
    if not os.environ.get("TRITON_INTERPRET"):
        pytest.skip("Triton was imported for a GPU")
    properties = SimpleNamespace(multi_processor_count=2, shared_memory_per_block_optin=99 << 10)
    ones, arange = torch.ones, torch.arange
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch, "ones", lambda *shape, dtype, device: ones(*shape, dtype=dtype))
    monkeypatch.setattr(torch, "arange", lambda end, device: arange(end))


@pytest.mark.usefixtures("gpu")
def test_triton_where_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert chosen() is not None
    assert "attention by Triton's kernels" in caplog.text
    assert chosen(torch.float32, 96) is not None
    assert chosen(device=CPU) is None


@pytest.mark.parametrize(("dtype", "dim"), [(torch.float64, 64), (torch.bfloat16, 512), (torch.bfloat16, 63)])
def test_a_model_that_its_kernels_do_not_take(
    caplog: pytest.LogCaptureFixture, dtype: torch.dtype, dim: int
) -> None:
    pytest.importorskip("triton")
    assert chosen(dtype, dim) is None
    assert "torch's operations run in place of Triton's kernels" in caplog.text


def test_without_triton(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda _: None)
    assert chosen() is None
    assert "Triton is not installed: torch's operations run" in caplog.text
    assert "decode steps not as CUDA graphs" in caplog.text


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("kind", ["TritonError", "OSError", "RuntimeError"])
def test_where_triton_does_not_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    import triton

    from worker_svc.kernels.triton_kernels import TritonKernels

    error = getattr(triton, kind, None) or {"OSError": OSError, "RuntimeError": RuntimeError}[kind]

    def norm(*_: object) -> None:
        raise error("no C compiler")

    monkeypatch.setattr(TritonKernels, "norm", norm)
    assert chosen() is None
    assert "no C compiler" in caplog.text


@pytest.mark.parametrize("kind", ["TritonError", "OSError", "RuntimeError"])
def test_where_triton_rounds_no_rows_torch_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    triton = pytest.importorskip("triton")
    from worker_svc.kernels.triton_kernels import TritonKernels
    from worker_svc.kernels.triton_rounding import TritonRounding

    error = getattr(triton, kind, None) or {"OSError": OSError, "RuntimeError": RuntimeError}[kind]

    def rounded(*_: object) -> None:
        raise error("no C compiler")

    monkeypatch.setattr(TritonRounding, "rounded", rounded)
    kernels = TritonKernels(multiprocessors=8, shared_bytes=200_000)
    products = choice.quantized_products(torch.float8_e4m3fn, CPU, torch.float32, None, kernels)
    assert "torch's operations round rows to 8 bits" in caplog.text
    assert "no C compiler" in caplog.text
    weight, x = torch.eye(32), torch.eye(32)[:3]
    torch.testing.assert_close(products.nearest(weight).multiply(x, None), x)  # type: ignore[union-attr]
