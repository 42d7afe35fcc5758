"""What the doctor says of the memory of numbers in 8 bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from albireo.models import TINY
from albireo.tools.doctor import memory
from albireo.tools.doctor.finding import Finding
from worker_svc.kernels.library import load
from worker_svc.model.config import ModelConfig
from worker_svc.settings import WorkerSettings


def found(**options: Any) -> dict[str, Finding]:
    settings = WorkerSettings.model_validate({"model": TINY, **options})
    findings = memory.check_memory(settings, ModelConfig.from_dir(TINY), 1)
    return {finding.check: finding for finding in findings}


def test_int8_weights_are_told_where_they_can_be() -> None:
    library = load()
    if library is None or library.function("matmul_int8", torch.float32) is None:
        pytest.skip("this CPU has no products of bytes")
    assert found(weights="int8", dtype="float32")["int8 weights"].level == "ok"
    assert "int8 weights" not in found()


def test_int8_kv_is_told_where_it_can_be_and_is_more_blocks() -> None:
    if load() is None:
        pytest.skip("no native kernels run on this CPU")
    granted = {"kv_memory": "4MiB", "dtype": "float32", "max_seqs": 64}
    int8, plain = found(kv_dtype="int8", **granted), found(**granted)
    assert int8["int8 KV"].level == "ok"
    assert "int8 KV" not in plain
    more, fewer = (int(each["kv blocks"].found.split(" blocks")[0].split()[-1]) for each in (int8, plain))
    assert more > 2 * fewer


@pytest.mark.parametrize(("option", "check"), [("weights", "int8 weights"), ("kv_dtype", "int8 KV")])
def test_where_it_cannot_be_it_is_a_failure(monkeypatch: pytest.MonkeyPatch, option: str, check: str) -> None:
    assert found(**{option: "int8"}, device="sim")[check].level == "failure"
    monkeypatch.setattr(memory, "native_kernels", lambda *_: None)
    assert found(**{option: "int8"})[check].level == "failure"


def test_fp8_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = found(weights="fp8")["fp8 weights"]
    assert refused.level == "failure"
    assert "fp8 is for --device cuda, not for cpu" in refused.found
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # no GPU here to ask
    assert found(weights="fp8", device="cuda")["fp8 weights"].level == "ok"


@pytest.mark.parametrize("tied", [False, True])
def test_bytes_of_weights_in_8_bits(tied: bool) -> None:
    """Layers have one byte a number; the embedding, and with fp8 the head, those of the model's type."""
    config = replace(ModelConfig.from_dir(TINY), tied_embeddings=tied)
    table, layers = config.vocab_size * config.hidden_size, 10_000
    weights = (table + (0 if tied else table) + layers) * 4
    int8, fp8 = (memory._bytes_in_8_bits(weights, config, 1, torch.float32, kind) for kind in ("int8", "fp8"))
    assert int8 == table * 4 + table + layers
    assert fp8 == table * 4 + (0 if tied else table * 4) + layers
