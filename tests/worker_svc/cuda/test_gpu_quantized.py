"""Weights in 8 bits: torch's scaled products and CUDA graphs with them bring what floats bring, nearly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from albireo.contract.plan import Admission, Chunk, Grant, Plan
from albireo.models import TINY
from albireo.runtime.kv_memory import KvMemory
from tests.worker_svc.cuda.scene import GREEDY, SLOTS, Tap, staggered
from tests.worker_svc.kernels.test_scaled_products import check_product, random, spread
from tests.worker_svc.quantized import quantize
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels.choice import quantized_products, triton_kernels
from worker_svc.kernels.interface import Heads
from worker_svc.model.formats import Formats, WeightFormat
from worker_svc.model.loader import EIGHT_BITS
from worker_svc.runner.model_runner import ModelRunner

KINDS = pytest.mark.parametrize("weights", EIGHT_BITS)
STORED = pytest.mark.parametrize("stored", [False, True], ids=["quantized here", "quantized in the files"])


@pytest.mark.gpu("compiled kernels: Triton's interpreter runs them in tests/worker_svc/kernels")
@KINDS
@pytest.mark.parametrize("rows", [0, 1, 16, 17, 33, 700])
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 16), (48, 80), (4096, 1536)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_product(
    cuda: torch.device, weights: str, rows: int, outputs: int, inputs: int, with_bias: bool
) -> None:
    kernels = triton_kernels(cuda, torch.bfloat16, 64, Heads(4, 2), 64)
    assert kernels is not None
    products = quantized_products(EIGHT_BITS[weights], cuda, torch.bfloat16, None, kernels)
    weight = spread(1, outputs, inputs).to(cuda, torch.bfloat16)
    x = spread(3, rows, inputs).to(cuda, torch.bfloat16)
    bias = random(5, outputs).to(cuda) if with_bias else None
    check_product(products, kernels.rounding, weight, x, bias)


@KINDS
@STORED
def test_steps_bring_nearly_what_floats_bring(
    cuda: torch.device, weights: WeightFormat, stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts, and decoding rows as CUDA graphs."""
    directory = bundled(tmp_path / "model", weights if stored else "dtype")
    quantized, floats = (runner_of(directory, Formats(each), cuda) for each in (weights, "dtype"))
    assert quantized._graphs is not None
    taps = [Tap(runner, monkeypatch) for runner in (quantized, floats)]
    for plan in staggered(SLOTS, 40):
        for runner in (quantized, floats):
            batch = runner.prepare(plan)
            torch.cuda.set_sync_debug_mode("error")  # nothing waits for the device
            try:
                runner.execute(batch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found, exact = (tap.logits.float().cpu() for tap in taps)
        assert 0 < float((found - exact).norm() / exact.norm()) < 0.1
        quantized._last_token.copy_(floats._last_token)  # near ties must not part the two


@KINDS
def test_a_step_in_which_no_row_samples(cuda: torch.device, weights: WeightFormat) -> None:
    """The last layer has rows for keys and values alone, and the head none."""
    runner = runner_of(TINY, Formats(weights), cuda)
    prompt = tuple(range(2, 42))
    admission = Admission(0, 1, "r", prompt, 0, 0, GREEDY)
    chunks = Chunk(0, 0, 20), Chunk(0, 20, 20)
    plans = [
        Plan(1, 1, admissions=(admission,), grants=(Grant(0, (0, 1, 2)),), chunks=chunks[:1]),
        Plan(1, 2, chunks=chunks[1:]),
        Plan(1, 3, num_decodes=1),
    ]
    found = [runner.execute(runner.prepare(plan)).to_host().ids.tolist() for plan in plans]
    assert [len(ids) for ids in found] == [0, 1, 1]
    assert min(found[1] + found[2]) >= 0


def bundled(directory: Path, stored: WeightFormat) -> Path:
    """The bundled model, as it is or quantized."""
    shutil.copytree(TINY, directory)
    if stored != "dtype":
        quantize(directory, stored)
    return directory


def runner_of(directory: Path, formats: Formats, device: torch.device) -> ModelRunner:
    return ModelRunner(
        directory,
        TPGroup(),
        device=device,
        dtype=torch.bfloat16,
        kv_memory=KvMemory(16 << 20),
        max_seqs=SLOTS,
        max_model_len=512,
        formats=formats,
    )
