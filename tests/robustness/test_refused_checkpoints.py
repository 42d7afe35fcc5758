"""What cannot be served is refused in one line that names the file, the field and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from albireo.checkpoint.files import CheckpointError
from tests.robustness.served import edit
from tests.worker_svc.checkpoints import FAMILIES, write
from tests.worker_svc.oracle import CPU
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.model.config import ModelConfig
from worker_svc.model.loader import Loader
from worker_svc.model.weight_files import INDEX, SINGLE
from worker_svc.model.weight_reader import WeightReader

EMBEDDING = "model.embed_tokens.weight"


def load(directory: Path) -> None:
    config = ModelConfig.from_dir(directory)
    checkpoint = WeightReader(directory, torch.float32)
    Loader(config, checkpoint, TPGroup(), CPU, torch.float32, max_model_len=64).load()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write(FAMILIES["llama2"], tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hidden_size": "64"}, "hidden_size: '64' is not a number"),
        ({"hidden_size": [64]}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": 64.5}, "hidden_size: 64.5 is not a whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0; must be above 0"),
        ({"vocab_size": -1}, "vocab_size: -1; must be above 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps: nan"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps: inf"),
        ({"vocab_size": 10**400}, "vocab_size: 1000"),
        ({"max_position_embeddings": {}}, "max_position_embeddings"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3 does not divide"),
        ({"head_dim": 7}, "head_dim: 7 is odd"),
        ({"rope_theta": "big", "rope_parameters": None}, "rope_theta"),
        ({"rope_scaling": ["yarn"]}, "rope_scaling: ['yarn'] is not an object"),
        ({"rope_scaling": {"type": "yarn", "factor": "4"}}, "rope_scaling: factor"),
        ({"rope_scaling": {"type": 4}}, "rope_scaling: type"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "rope_scaling: short_factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"hidden_act": 1}, "hidden_act"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures: LlamaForSequenceClass"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"model_type": "gemma3"}, "model_type: gemma3; supported: llama, mistral, qwen2, qwen3"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config: quant_method: 'awq'"),
        ({"compression_config": {"format": "int"}}, "compression_config: quant_method: None"),
        ({"quantization_config": "int8"}, "quantization_config: 'int8' is not an object"),
        ({"attention_bias": "no"}, "attention_bias"),
    ],
)
def test_a_field_that_is_wrong_is_named(model: Path, fields: dict[str, Any], named: str) -> None:
    edit(model / "config.json", **fields)
    with pytest.raises(CheckpointError) as refused:
        ModelConfig.from_dir(model)
    assert str(refused.value).startswith(f"{model / 'config.json'}: {named}")
    assert "\n" not in str(refused.value)


def gguf_inside(directory: Path) -> None:
    (directory / "config.json").unlink()
    (directory / SINGLE).rename(directory / "model-Q4_K_M.gguf")


def adapter(directory: Path) -> None:
    (directory / "config.json").rename(directory / "adapter_config.json")


def cache(directory: Path) -> None:
    (directory / "config.json").unlink()
    (directory / "snapshots").mkdir()
    (directory / "blobs").mkdir()


def emptied(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


def torch_only(directory: Path) -> None:
    torch.save(load_file(directory / SINGLE), directory / "pytorch_model.bin")
    (directory / SINGLE).unlink()


def in_type(dtype: torch.dtype) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        tensors = load_file(directory / SINGLE)
        tensors[EMBEDDING] = tensors[EMBEDDING].to(dtype)
        save_file(tensors, directory / SINGLE)

    return change


def without_head(directory: Path) -> None:
    save_file(
        {n: t for n, t in load_file(directory / SINGLE).items() if "lm_head" not in n}, directory / SINGLE
    )


def index_of(value: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        (directory / SINGLE).unlink()
        (directory / INDEX).write_text(json.dumps(value))

    return change


def cut(directory: Path) -> None:
    os.truncate(directory / SINGLE, 10_000)


@pytest.mark.parametrize(
    ("change", "named", "advice"),
    [
        (gguf_inside, "GGUF", "download the safetensors"),
        (adapter, "adapter_config.json", "merge it"),
        (cache, "hub's cache", "snapshots/"),
        (emptied, "empty", "download the whole checkpoint"),
        (torch_only, "pytorch_model.bin", "save_pretrained"),
        (in_type(torch.int8), f"{EMBEDDING} is I8", "supported: BF16"),
        (in_type(torch.float8_e4m3fn), f"{EMBEDDING} is F8_E4M3", "supported: BF16"),
        (without_head, "lm_head.weight", "tie_word_embeddings"),
        (index_of({"metadata": {}}), INDEX, "weight_map"),
        (index_of({"weight_map": ["a"]}), INDEX, "weight_map"),
        (index_of({"weight_map": {"a": 1}}), INDEX, "weight_map"),
        (index_of({"weight_map": {"a": "../a.safetensors"}}), INDEX, "no name of a file"),
        (index_of({"weight_map": {"a": "lost.safetensors"}}), "lost.safetensors", "download"),
        (cut, SINGLE, "download it again"),
    ],
)
def test_a_directory_that_cannot_be_served(
    model: Path, change: Callable[[Path], None], named: str, advice: str
) -> None:
    change(model)
    with pytest.raises(CheckpointError) as refused:
        load(model)
    text = str(refused.value)
    assert str(model) in text
    assert named in text
    assert advice in text
    assert "\n" not in text


def test_a_file_in_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "model.GGUF").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"model\.GGUF: a GGUF file; --model names a directory"):
        ModelConfig.from_dir(tmp_path / "model.GGUF")


def test_the_process_says_it_in_one_line() -> None:
    """A hub's name, which is what vLLM and TGI take: before anything else is started."""
    found = subprocess.run(
        [sys.executable, "-m", "albireo.cli", "worker", "--model", "Qwen/Qwen2.5-0.5B"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert found.returncode == 1
    [line] = found.stderr.splitlines()
    assert line.startswith("worker-0: Qwen/Qwen2.5-0.5B: no such directory")
    assert "hf download Qwen/Qwen2.5-0.5B --local-dir" in line
