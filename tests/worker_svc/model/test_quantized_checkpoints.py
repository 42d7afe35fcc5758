"""W8A8 checkpoints of compressed-tensors: int8 as the files have it, or read as floats."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from albireo.checkpoint.files import CheckpointError
from tests.robustness.served import edit, our_logits, prompt_of
from tests.worker_svc.checkpoints import FAMILIES, write
from tests.worker_svc.kernels.builds import native
from tests.worker_svc.oracle import CPU
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels.native import Int8Weight
from worker_svc.model.config import ModelConfig
from worker_svc.model.loader import Loader
from worker_svc.model.transformer import Transformer
from worker_svc.model.weight_files import SINGLE
from worker_svc.model.weight_reader import WeightReader

QUANTIZATION: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "kv_cache_scheme": None,
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "channel",
                "dynamic": False,
                "group_size": None,
            },
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
            "output_activations": None,
        }
    },
}


def quantize(directory: Path, *, flat_scales: bool = False) -> None:
    """Makes the linear layers of a checkpoint int8."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(directory / SINGLE).items():
        if not name.endswith("proj.weight"):
            tensors[name] = tensor
            continue
        scales = tensor.float().abs().amax(1, keepdim=True) / 127
        tensors[name] = (tensor.float() / scales).round().to(torch.int8)
        tensors[name + "_scale"] = scales.flatten() if flat_scales else scales
    save_file(tensors, directory / SINGLE)
    edit(directory / "config.json", quantization_config=QUANTIZATION)


def dequantize(directory: Path) -> None:
    """Makes it what the numbers stand for."""
    tensors = load_file(directory / SINGLE)
    for name in [name for name in tensors if name.endswith("_scale")]:
        scales = tensors.pop(name).view(-1, 1)
        tensors[name.removesuffix("_scale")] = tensors[name.removesuffix("_scale")].float() * scales
    save_file(tensors, directory / SINGLE)
    edit(directory / "config.json", "quantization_config")


def load(directory: Path, group: TPGroup | None = None, *, int8: bool = False) -> Transformer:
    config, dtype = ModelConfig.from_dir(directory), torch.float32
    reader = WeightReader(directory, dtype)
    return Loader(config, reader, group or TPGroup(), CPU, dtype, 64, int8=int8).load()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write(FAMILIES["llama-biased"], tmp_path, hidden_size=128, intermediate_size=192)
    quantize(tmp_path)
    return tmp_path


def test_read_as_floats_it_is_what_the_numbers_stand_for(checkpoint: Path) -> None:
    prompt = prompt_of(30)
    found = our_logits(checkpoint, prompt, 64)
    dequantize(checkpoint)
    assert torch.equal(found, our_logits(checkpoint, prompt, 64))


@pytest.mark.parametrize("flat_scales", [False, True])
@pytest.mark.parametrize("size", [1, 2])
def test_int8_products_are_of_the_numbers_in_the_files(tmp_path: Path, size: int, flat_scales: bool) -> None:
    kernels = native(torch.float32)
    if not kernels.has_int8:
        pytest.skip("this CPU has no products of bytes")
    write(FAMILIES["llama-biased"], tmp_path, hidden_size=128, intermediate_size=192)
    quantize(tmp_path, flat_scales=flat_scales)
    stored, name = load_file(tmp_path / SINGLE), "model.layers.1.mlp.down_proj"
    bias = stored[f"{name}.bias"]
    x = torch.randn(5, 192, generator=torch.Generator().manual_seed(1))
    total = torch.zeros(5, 128)
    for rank, rows in enumerate(x.chunk(size, dim=1)):
        found = load(tmp_path, TPGroup(rank, size), int8=True).blocks[1].mlp.down.part(rows.contiguous())
        numbers = stored[f"{name}.weight"].chunk(size, dim=1)[rank].contiguous()
        weight = Int8Weight(numbers, stored[f"{name}.weight_scale"].flatten())
        assert torch.equal(found, kernels.matmul_int8(rows.contiguous(), weight, None if rank else bias))
        total += found
    exact = x @ (stored[f"{name}.weight"].float() * stored[f"{name}.weight_scale"].view(-1, 1)).T + bias
    assert (total - exact).norm() / exact.norm() < 0.02


def test_joined_layers_keep_the_scales_of_each(checkpoint: Path) -> None:
    if not native(torch.float32).has_int8:
        pytest.skip("this CPU has no products of bytes")
    x = torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    for layer in ("attention.qkv", "mlp.gate_up"):
        half, name = layer.split(".")
        found, exact = (
            getattr(getattr(load(checkpoint, int8=int8).blocks[0], half), name)(x) for int8 in (True, False)
        )
        assert 0 < (found - exact).norm() / exact.norm() < 0.02


CHANGES: list[tuple[tuple[str, ...], Any, str]] = [
    (("format",), "pack-quantized", "format: 'pack-quantized'"),
    (("quant_method",), "gptq", "quant_method: 'gptq'"),
    (("kv_cache_scheme",), {"num_bits": 8}, "kv_cache_scheme: not supported"),
    (("transform_config",), {"config_groups": {"a": {}}}, "transform_config: not supported"),
    (("sparsity_config",), {"format": "sparse-24-bitmask"}, "sparsity_config: format: 'sparse-24-bitmask'"),
    (("config_groups",), {}, "config_groups: missing"),
    (("config_groups", "group_0"), None, "config_groups: group_0: missing"),
    (("config_groups", "group_0", "weights"), None, "config_groups: group_0: weights: missing"),
    (("config_groups", "group_0", "weights", "num_bits"), 4, "weights: num_bits: 4"),
    (("config_groups", "group_0", "weights", "strategy"), "group", "weights: strategy: 'group'"),
    (("config_groups", "group_0", "weights", "symmetric"), False, "weights: symmetric: False"),
    (("config_groups", "group_0", "weights", "type"), "float", "weights: type: 'float'"),
    (("config_groups", "group_0", "input_activations"), None, "input_activations: missing"),
    (
        ("config_groups", "group_0", "input_activations", "dynamic"),
        False,
        "input_activations: dynamic: False",
    ),
    (("config_groups", "group_0", "input_activations", "strategy"), "tensor", "strategy: 'tensor'"),
    (("config_groups", "group_0", "output_activations"), {"num_bits": 8}, "output_activations"),
]


@pytest.mark.parametrize(("path", "value", "named"), CHANGES)
def test_other_schemes_are_refused_by_the_field(
    checkpoint: Path, path: tuple[str, ...], value: Any, named: str
) -> None:
    changed = copy.deepcopy(QUANTIZATION)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    edit(checkpoint / "config.json", quantization_config=changed)
    with pytest.raises(CheckpointError, match=named) as refused:
        ModelConfig.from_dir(checkpoint)
    assert str(refused.value).startswith(f"{checkpoint / 'config.json'}: quantization_config: ")


@pytest.mark.parametrize("scales", [torch.ones(1), torch.ones(64, 2), torch.ones(192, dtype=torch.int32)])
def test_scales_that_do_not_fit_are_refused(checkpoint: Path, scales: Tensor) -> None:
    tensors = load_file(checkpoint / SINGLE)
    name = "model.layers.0.mlp.up_proj.weight_scale"
    save_file(tensors | {name: scales}, checkpoint / SINGLE)
    with pytest.raises(CheckpointError, match=f"tensor {name} is .* not a number for each of 192 outputs"):
        load(checkpoint)
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, checkpoint / SINGLE)
    with pytest.raises(CheckpointError, match="is I8, as in quantized models"):
        load(checkpoint)


def test_every_tensor_is_read(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(checkpoint)
    assert "belong to no layer" not in caplog.text
