"""W8A8 checkpoints of compressed-tensors: int8 or FP8 as the files have it, or read as floats."""

from __future__ import annotations

import logging
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
from tests.worker_svc.quantized import NUMBERS, dequantize, quantization, quantize
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels.native_weights import Int8Weight
from worker_svc.kernels.rounding import rounded
from worker_svc.model.config import ModelConfig
from worker_svc.model.formats import Formats, WeightFormat
from worker_svc.model.loader import Loader
from worker_svc.model.transformer import Transformer
from worker_svc.model.weight_files import SINGLE
from worker_svc.model.weight_reader import WeightReader


def load(directory: Path, group: TPGroup | None = None, weights: WeightFormat = "dtype") -> Transformer:
    config, dtype = ModelConfig.from_dir(directory), torch.float32
    reader = WeightReader(directory, dtype)
    return Loader(config, reader, group or TPGroup(), CPU, dtype, 64, Formats(weights)).load()


@pytest.fixture
def floats(tmp_path: Path) -> Path:
    write(FAMILIES["llama-biased"], tmp_path, hidden_size=128, intermediate_size=192)
    return tmp_path


@pytest.fixture
def checkpoint(floats: Path) -> Path:
    quantize(floats)
    return floats


def needs_products(weights: str) -> None:
    if weights == "int8" and not native(torch.float32).has_int8:
        pytest.skip("this CPU has no products of bytes")


KINDS = pytest.mark.parametrize("stored", NUMBERS)


@KINDS
@pytest.mark.parametrize("strategy", ["channel", "tensor"])
def test_read_as_floats_it_is_what_the_numbers_stand_for(floats: Path, stored: str, strategy: str) -> None:
    if (stored, strategy) == ("int8", "tensor"):
        return  # refused, see below
    quantize(floats, stored, strategy=strategy)
    prompt = prompt_of(30)
    found = our_logits(floats, prompt, 64)
    dequantize(floats)
    assert torch.equal(found, our_logits(floats, prompt, 64))


@pytest.mark.parametrize("flat_scales", [False, True])
@pytest.mark.parametrize("size", [1, 2])
def test_int8_products_are_of_the_numbers_in_the_files(floats: Path, size: int, flat_scales: bool) -> None:
    needs_products("int8")
    kernels = native(torch.float32)
    quantize(floats, flat_scales=flat_scales)
    down = Down(floats)
    total = torch.zeros(5, 128)
    for rank, rows in enumerate(down.x.chunk(size, dim=1)):
        found = load(floats, TPGroup(rank, size), weights="int8").blocks[1].mlp.down.part(rows.contiguous())
        weight = Int8Weight(down.numbers.chunk(size, dim=1)[rank].contiguous(), down.scales.flatten())
        assert torch.equal(found, kernels.matmul(rows.contiguous(), weight, None if rank else down.bias))
        total += found
    assert down.error(total) < 0.02


@pytest.mark.parametrize(
    ("flat_scales", "strategy"), [(False, "channel"), (True, "channel"), (True, "tensor")]
)
@pytest.mark.parametrize("size", [1, 2])
def test_fp8_products_are_of_the_numbers_in_the_files(
    floats: Path, size: int, flat_scales: bool, strategy: str
) -> None:
    quantize(floats, "fp8", flat_scales=flat_scales, strategy=strategy)
    down = Down(floats)
    total = torch.zeros(5, 128)
    for rank, rows in enumerate(down.x.chunk(size, dim=1)):
        found = load(floats, TPGroup(rank, size), weights="fp8").blocks[1].mlp.down.part(rows.contiguous())
        numbers, scales = rounded(rows, torch.float8_e4m3fn)
        stored = down.numbers.chunk(size, dim=1)[rank].float() * down.scales
        exact = (numbers.float() * scales) @ stored.T + (0.0 if rank else down.bias)
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)
        total += found
    assert down.error(total) < 0.05


@KINDS
@pytest.mark.parametrize("size", [1, 2])
def test_floats_are_quantized_on_each_rank(floats: Path, stored: WeightFormat, size: int) -> None:
    """The parts of a row-parallel layer have scales of their own; those of a column-parallel one are rows."""
    needs_products(stored)
    quantize(floats)
    down = Down(floats)
    dequantize(floats)
    x = torch.randn(5, 128, generator=torch.Generator().manual_seed(2))
    ranks = [load(floats, TPGroup(rank, size), weights=stored).blocks[1].mlp for rank in range(size)]
    parts = [rank.down.part(x.contiguous()) for rank, x in zip(ranks, down.x.chunk(size, 1), strict=True)]
    assert 0 < down.error(torch.stack(parts).sum(0)) < 0.05
    exact = [half.chunk(size, 1) for half in load(floats).blocks[1].mlp.gate_up(x).chunk(2, dim=1)]
    for rank, gate, up in zip(ranks, *exact, strict=True):
        wanted = torch.cat([gate, up], dim=1)
        assert 0 < (rank.gate_up(x) - wanted).norm() / wanted.norm() < 0.05


class Down:
    """The last layer of an MLP in the files, and rows for it."""

    def __init__(self, directory: Path) -> None:
        stored, name = load_file(directory / SINGLE), "model.layers.1.mlp.down_proj"
        self.numbers, self.bias = stored[f"{name}.weight"], stored[f"{name}.bias"]
        self.scales = stored[f"{name}.weight_scale"].float().view(-1, 1)
        self.x = torch.randn(5, 192, generator=torch.Generator().manual_seed(1))

    def error(self, found: Tensor) -> float:
        """Relative, of the sum over all ranks."""
        exact = self.x @ (self.numbers.float() * self.scales).T + self.bias
        return float((found - exact).norm() / exact.norm())


@KINDS
def test_joined_layers_keep_the_scales_of_each(floats: Path, stored: WeightFormat) -> None:
    needs_products(stored)
    quantize(floats, stored, strategy="tensor" if stored == "fp8" else "channel")
    x = torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    formats: tuple[WeightFormat, ...] = stored, "dtype"
    for layer in ("attention.qkv", "mlp.gate_up"):
        half, name = layer.split(".")
        found, exact = (
            getattr(getattr(load(floats, weights=weights).blocks[0], half), name)(x) for weights in formats
        )
        assert 0 < (found - exact).norm() / exact.norm() < 0.05


def test_the_head_stays_as_it_is_with_fp8(floats: Path) -> None:
    needs_products("int8")
    rows = torch.randn(5, 128)
    exact, fp8, int8 = (
        load(floats, weights=weights).head(rows).clone() for weights in ("dtype", "fp8", "int8")
    )
    assert torch.equal(fp8, exact)
    assert not torch.equal(int8, exact)


@pytest.mark.parametrize(("stored", "weights"), [("int8", "fp8"), ("fp8", "int8")])
def test_numbers_of_the_other_format_are_quantized_again(
    floats: Path, stored: str, weights: WeightFormat, caplog: pytest.LogCaptureFixture
) -> None:
    needs_products(weights)
    quantize(floats, stored)
    down = Down(floats)
    with caplog.at_level(logging.INFO):
        found = load(floats, weights=weights).blocks[1].mlp.down(down.x)
    assert 0 < down.error(found) < 0.06
    assert f"weights of the checkpoint in {stored} are read as floats" in caplog.text


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
    (("config_groups", "group_0", "weights", "strategy"), "block", "weights: strategy: 'block'"),
    (("config_groups", "group_0", "weights", "type"), "uint", "weights: type: 'uint'"),
    (("config_groups", "group_0", "input_activations"), None, "input_activations: missing"),
    (
        ("config_groups", "group_0", "input_activations", "dynamic"),
        False,
        "input_activations: dynamic: False",
    ),
    (("config_groups", "group_0", "input_activations", "strategy"), "tensor", "strategy: 'tensor'"),
    (("config_groups", "group_0", "output_activations"), {"num_bits": 8}, "output_activations"),
]


@KINDS
@pytest.mark.parametrize(("path", "value", "named"), CHANGES)
def test_other_schemes_are_refused_by_the_field(
    checkpoint: Path, stored: str, path: tuple[str, ...], value: Any, named: str
) -> None:
    changed = quantization(stored)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    edit(checkpoint / "config.json", quantization_config=changed)
    with pytest.raises(CheckpointError, match=named) as refused:
        ModelConfig.from_dir(checkpoint)
    assert str(refused.value).startswith(f"{checkpoint / 'config.json'}: quantization_config: ")


def test_one_scale_for_all_of_an_int8_weight_is_refused(checkpoint: Path) -> None:
    edit(checkpoint / "config.json", quantization_config=quantization("int8", "tensor"))
    with pytest.raises(CheckpointError, match="weights: strategy: 'tensor'"):
        ModelConfig.from_dir(checkpoint)


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


@KINDS
def test_every_tensor_is_read(floats: Path, stored: str, caplog: pytest.LogCaptureFixture) -> None:
    quantize(floats, stored)
    load(floats)
    assert "belong to no layer" not in caplog.text


def test_shapes_that_no_product_takes_stay_in_floats(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On each of two ranks, 20 units."""
    write(FAMILIES["llama-biased"], tmp_path, hidden_size=64, intermediate_size=40)
    quantize(tmp_path, "fp8")
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    with caplog.at_level(logging.INFO):
        blocks = [load(tmp_path, TPGroup(1, 2), weights=weights).blocks[0] for weights in ("fp8", "dtype")]
    found, exact = ((block.attention.qkv(x), block.mlp.gate_up(x)) for block in blocks)
    assert not torch.equal(found[0], exact[0])
    assert torch.equal(found[1], exact[1])
    down = "model.layers.0.mlp"
    assert f"no product in fp8 takes the shapes of 4 weights, as of {down}.gate_proj.weight" in caplog.text
