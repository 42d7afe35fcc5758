"""``--weights`` and ``--kv-dtype`` in 8 bits where they cannot be: refused with a reason, never ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from albireo.checkpoint.files import CheckpointError
from albireo.models import TINY
from worker_svc import main
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels.library import load
from worker_svc.model import loader
from worker_svc.model.config import ModelConfig
from worker_svc.model.formats import Formats
from worker_svc.model.weight_reader import WeightReader
from worker_svc.settings import WorkerSettings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "option", "value", "served"),
    [
        ("sim", "weights", "int8", "cpu or cuda"),
        ("sim", "weights", "fp8", "cuda"),
        ("cpu", "weights", "fp8", "cuda"),
        ("sim", "kv_dtype", "int8", "cpu"),
        ("cuda", "kv_dtype", "int8", "cpu"),
    ],
)
def test_other_devices_refuse_it(device: str, option: str, value: str, served: str) -> None:
    settings = WorkerSettings.model_validate({"model": TINY, "device": device, option: value})
    with pytest.raises(ValueError, match=f"{option}: {value} is for --device {served}, not for {device}"):
        main._runner(settings, TPGroup(), CPU)


def test_int8_on_a_cpu_takes_the_native_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "native_kernels", lambda *_, **__: None)
    with pytest.raises(CheckpointError, match="--weights int8: takes a CPU with AVX512-VNNI"):
        load_model(TINY, Formats("int8"))
    with pytest.raises(CheckpointError, match="int8 KV takes a CPU, native kernels"):
        load_model(TINY, Formats(kv="int8"))


def test_a_device_without_scaled_products_refuses_fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled_mm(*_: object, **__: object) -> None:
        raise NotImplementedError("only with compute capability >= 9.0 or 8.9")

    monkeypatch.setattr(F, "scaled_mm", scaled_mm)
    with pytest.raises(CheckpointError, match=f"{TINY}: --weights fp8: only with compute capability >= 9.0"):
        load_model(TINY, Formats("fp8"))


def test_another_value_is_refused() -> None:
    for option in ("weights", "kv_dtype"):
        with pytest.raises(ValueError, match=option):
            WorkerSettings.model_validate({"model": TINY, option: "int7"})


def test_the_bundled_model_says_nearly_the_same(tmp_path: Path) -> None:
    library = load()
    if library is None or library.function("matmul_int8", torch.float32) is None:
        pytest.skip("this CPU has no products of bytes")
    from bench.quantization_quality import measure, prompts

    bf16, *others = measure(TINY, prompts(TINY, 3))
    assert len(others) == 4
    for quality in others:
        assert bf16.mean_kl < quality.mean_kl < 0.1, quality
        assert quality.same_top_token > 0.9, quality


def load_model(directory: Path, formats: Formats) -> None:
    config = ModelConfig.from_dir(directory)
    weights = WeightReader(directory, torch.float32)
    loader.Loader(config, weights, TPGroup(), CPU, torch.float32, 64, formats).load()
