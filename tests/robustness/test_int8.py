"""``--weights int8`` and ``--kv-dtype int8`` where they cannot be: refused with a reason, never ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from albireo.checkpoint.files import CheckpointError
from albireo.models import TINY
from worker_svc import main
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels.library import load
from worker_svc.model import loader
from worker_svc.model.config import ModelConfig
from worker_svc.model.int8 import Int8
from worker_svc.model.weight_reader import WeightReader
from worker_svc.settings import WorkerSettings

CPU = torch.device("cpu")


@pytest.mark.parametrize("option", ["weights", "kv_dtype"])
@pytest.mark.parametrize("device", ["sim", "cuda"])
def test_other_devices_refuse_it(device: str, option: str) -> None:
    settings = WorkerSettings.model_validate({"model": TINY, "device": device, option: "int8"})
    with pytest.raises(ValueError, match=f"{option}: int8 is for CPUs, not for --device {device}"):
        main._runner(settings, TPGroup(), CPU)


def test_it_takes_the_native_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "native_kernels", lambda *_, **__: None)
    with pytest.raises(CheckpointError, match="int8 weights take a CPU with AVX512-VNNI"):
        load_model(TINY, Int8(weights=True))
    with pytest.raises(CheckpointError, match="int8 KV takes a CPU, native kernels"):
        load_model(TINY, Int8(kv=True))


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
    assert len(others) == 3
    for int8 in others:
        assert bf16.mean_kl < int8.mean_kl < 0.1, int8
        assert int8.same_top_token > 0.9, int8


def load_model(directory: Path, int8: Int8) -> None:
    config = ModelConfig.from_dir(directory)
    weights = WeightReader(directory, torch.float32)
    loader.Loader(config, weights, TPGroup(), CPU, torch.float32, 64, int8).load()
