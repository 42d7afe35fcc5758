"""Checks of the model's directory and of memory, on good and on broken checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from albireo.models import TINY
from albireo.tools.doctor.checkpoint import check_config, check_files, check_tokenizer
from albireo.tools.doctor.finding import Finding
from albireo.tools.doctor.memory import check_memory, rank_bytes
from tests.worker_svc.checkpoints import FAMILIES, write
from worker_svc.model.config import ModelConfig
from worker_svc.settings import WorkerSettings

WEIGHTS = "model.safetensors"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The bundled model, to be broken."""
    shutil.copytree(TINY, tmp_path / "model")
    return tmp_path / "model"


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def memory(directory: Path, tp: int = 1, **options: Any) -> dict[str, Finding]:
    settings = WorkerSettings(model=directory, **options)
    config = ModelConfig.from_dir(directory)
    return {finding.check: finding for finding in check_memory(settings, config, tp)}


def test_the_bundled_model_is_well() -> None:
    found, config = check_config(TINY, 2)
    assert config is not None
    assert levels(found) == ["ok", "ok"]
    assert "LlamaForCausalLM, 4 layers, 8 heads (4 for KV)" in found[0].found
    assert check_files(TINY).level == "ok"
    assert levels(check_tokenizer(TINY)) == ["ok"]
    assert {finding.level for finding in memory(TINY, tp=2).values()} == {"ok"}


def test_a_tp_that_does_not_divide_names_those_that_do() -> None:
    found, config = check_config(TINY, 3)
    assert config is not None
    assert found[1].level == "failure"
    assert found[1].advice == "choose --tp 1, 2, 4"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "supported: LlamaForCausalLM"),
        ({"quantization_config": {}}, "quantized"),
        ({"hidden_size": "wide", "head_dim": None}, "config.json"),
    ],
)
def test_a_config_that_cannot_be_served_is_a_failure(
    copy: Path, fields: dict[str, Any], problem: str
) -> None:
    edit(copy / "config.json", **fields)
    found, config = check_config(copy, 1)
    assert config is None
    assert levels(found) == ["failure"]
    assert problem in found[0].found


def test_no_directory_is_a_failure(tmp_path: Path) -> None:
    found, config = check_config(tmp_path / "none", 1)
    assert (levels(found), config) == (["failure"], None)


def test_a_model_without_an_end_is_a_warning(copy: Path) -> None:
    edit(copy / "config.json", eos_token_id=None)
    (copy / "generation_config.json").unlink()
    edit(copy / "tokenizer_config.json", eos_token=None)
    assert levels(check_config(copy, 1)[0]) == ["ok", "ok", "warning"]


def test_missing_weights_are_named(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    found = check_files(copy)
    assert (found.level, WEIGHTS in found.found) == ("failure", True)
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    (copy / "one.safetensors").touch()
    assert "1 of 2 files are missing: two.safetensors" in check_files(copy).found
    index.write_text("{")
    assert check_files(copy).level == "failure"


def test_a_file_that_was_cut_off_is_seen(copy: Path) -> None:
    data = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(data[: len(data) // 2])
    assert memory(copy)["model tensors"].level == "failure"


@pytest.mark.parametrize("change", ["gone", "another shape"])
def test_a_tensor_that_is_not_as_the_config_says_is_named(copy: Path, change: str) -> None:
    name, tensors = "model.layers.3.mlp.down_proj.weight", load_file(copy / WEIGHTS)
    tensors[name] = tensors[name][:-1].contiguous()
    if change == "gone":
        del tensors[name]
    save_file(tensors, copy / WEIGHTS)
    found = memory(copy)["model tensors"]
    assert (found.level, name in found.found) == ("failure", True)


@pytest.mark.parametrize("family", ["llama-biased", "qwen25-tied", "qwen3"])
def test_the_bytes_of_a_rank_are_those_of_its_tensors(tmp_path: Path, family: str) -> None:
    write(FAMILIES[family], tmp_path)
    config = ModelConfig.from_dir(tmp_path)
    whole = sum(
        tensor.numel() for file in tmp_path.glob("*.safetensors") for tensor in load_file(file).values()
    )
    assert rank_bytes(tmp_path, config, 1, torch.float32) == 4 * whole
    half = rank_bytes(tmp_path, config, 2, torch.bfloat16)
    assert whole < half < 1.2 * whole  # bytes; norms and some biases are not shared out


def test_a_gateways_files_are_checked(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{}")
    assert levels(check_tokenizer(copy)) == ["failure"]
    (copy / "tokenizer.json").unlink()
    [found] = check_tokenizer(copy)
    assert (found.level, "tokenizer.json" in found.found) == ("failure", True)


def test_a_tokenizer_of_another_model_is_a_failure(copy: Path) -> None:
    edit(copy / "config.json", vocab_size=300)
    [found] = check_tokenizer(copy)
    assert (found.level, "384 tokens" in found.found) == ("failure", True)


def test_added_tokens_that_the_model_lacks_are_a_warning(copy: Path) -> None:
    (copy / "added_tokens.json").write_text('{"<tool>": 384}')
    [found] = check_tokenizer(copy)
    assert (found.level, "385 tokens" in found.found) == ("warning", True)


def test_a_chat_template_is_parsed_and_missed(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{% for %}")
    assert levels(check_tokenizer(copy)) == ["warning"]
    (copy / "chat_template.jinja").unlink()
    edit(copy / "tokenizer_config.json", chat_template=None)
    assert levels(check_tokenizer(copy)) == ["warning"]


def test_memory_for_kv_is_counted_in_blocks_tokens_and_requests() -> None:
    # 4 layers, keys and values, 16 tokens, 4 heads of 16 numbers, 2 bytes: 16 KiB a block.
    found = memory(TINY, kv_memory="1MiB")["kv blocks"]
    assert found.found == (
        "1MiB: 1.0 MiB a rank, 64 blocks, 1024 tokens, 1.0 requests of 1024 tokens; 64 slots"
    )
    assert found.level == "ok"
    split = memory(TINY, tp=2, kv_memory="1MiB")["kv blocks"]
    assert "128 blocks" in split.found


def test_too_little_memory_for_kv_is_told(copy: Path) -> None:
    assert memory(TINY, kv_memory="1MiB", max_seqs=100)["kv blocks"].level == "warning"
    edit(copy / "config.json", max_position_embeddings=4096)
    found = memory(copy, kv_memory="1MiB")["kv blocks"]
    assert (found.level, "longer than 1024" in found.advice) == ("warning", True)


def test_more_than_the_machine_has_is_a_failure_that_says_what_fits() -> None:
    found = memory(TINY, kv_memory="16TiB")["memory"]
    assert found.level == "failure"
    fits = int(found.advice.split(" to ")[1].split("MiB")[0])
    assert 0 < fits < 1 << 24
    assert memory(TINY, kv_memory=f"{fits // 2}MiB")["memory"].level == "ok"


def test_the_simulated_device_takes_no_memory() -> None:
    assert memory(TINY, device="sim")["memory"].level == "note"
