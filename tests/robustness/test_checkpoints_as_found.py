"""Checkpoints as people have them, which transformers serves: so do we, with the same logits."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Qwen3Config

from tests.robustness.served import check_same, edit
from tests.worker_svc.checkpoints import FAMILIES, MAX_POSITIONS, Family, write
from worker_svc.model.config import ModelConfig
from worker_svc.model.weight_files import INDEX, SINGLE

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
Change = Callable[[Path], None]


def fields(*drop: str, **values: Any) -> Change:
    return lambda directory: edit(directory / "config.json", *drop, **values)


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    """``change`` of all tensors of a single file."""

    def apply(directory: Path) -> None:
        save_file(change(load_file(directory / SINGLE)), directory / SINGLE, metadata={"format": "pt"})

    return apply


def in_type(dtype: torch.dtype) -> Change:
    return tensors(lambda found: {name: tensor.to(dtype) for name, tensor in found.items()})


def stale_index(directory: Path) -> None:
    index = {"metadata": {}, "weight_map": {EMBEDDING: "model-00001-of-00009.safetensors"}}
    (directory / INDEX).write_text(json.dumps(index))


def into_blobs(directory: Path) -> None:
    """As a hub's cache lays it out: links to files that are named by their content."""
    blobs = directory.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(directory.iterdir())):
        path.rename(blobs / str(number))
        os.symlink(blobs / str(number), path)


def another_head(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return found | {HEAD: found[EMBEDDING].flip(0).contiguous()}


AS_FOUND: dict[str, tuple[str, Change]] = {
    "no architectures": ("llama2", fields("architectures")),
    "no fields with defaults": (
        "llama-linear",
        fields(
            *"rms_norm_eps hidden_act attention_bias mlp_bias head_dim tie_word_embeddings dtype".split(),
        ),
    ),
    "swish": ("llama2", fields(hidden_act="swish")),
    "null quantization": ("llama2", fields(quantization_config=None)),
    "null head_dim and KV heads": ("llama2", fields(head_dim=None, num_key_value_heads=None)),
    "theta as an integer": ("llama2", fields("rope_parameters", rope_theta=50000)),
    "no layer slides": (
        "qwen2",
        fields("layer_types", use_sliding_window=True, sliding_window=16, max_window_layers=2),
    ),
    "layer types that are all full": (
        "qwen3",
        fields(use_sliding_window=True, sliding_window=16, layer_types=["full_attention"] * 2),
    ),
    "bias in qwen3": ("qwen3-biased", lambda directory: None),
    "another head than the embedding": ("llama32-tied", tensors(another_head)),
    "embedding under the head's name": (
        "llama32-tied",
        tensors(lambda found: {HEAD if name == EMBEDDING else name: t for name, t in found.items()}),
    ),
    "no prefix": (
        "llama32-tied",
        tensors(lambda found: {name.removeprefix("model."): t for name, t in found.items()}),
    ),
    "saved without the head": ("llama32-tied", fields(architectures=["LlamaModel"])),
    "a class by an old name": ("llama2", fields(architectures=["LLaMAForCausalLM"])),
    "buffers": (
        "llama2",
        tensors(lambda found: found | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
    ),
    "fp16": ("llama2", in_type(torch.float16)),
    "fp64": ("llama2", in_type(torch.float64)),
    "stale index": ("llama2", stale_index),
    "links into a cache": ("llama31", into_blobs),
}
BIASED = Family(Qwen3Config, {"head_dim": 16, "attention_bias": True})


@pytest.mark.parametrize("name", AS_FOUND)
def test_the_logits_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    family, change = AS_FOUND[name]
    directory = tmp_path / "a model's “directory”"
    write((FAMILIES | {"qwen3-biased": BIASED})[family], directory)
    change(directory)
    check_same(directory)
    # Nor is the context cut.
    assert ModelConfig.from_dir(directory).max_positions == MAX_POSITIONS


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    """transformers 5 refuses these, earlier ones took them: the reference is the same model without."""
    write(FAMILIES["llama2"], tmp_path / "plain")
    write(FAMILIES["llama2"], tmp_path / "floats")
    edit(tmp_path / "floats" / "config.json", hidden_size=64.0, num_hidden_layers=2.0)
    check_same(tmp_path / "floats", reference=tmp_path / "plain")


def test_a_head_that_differs_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(FAMILIES["llama32-tied"], tmp_path)
    tensors(another_head)(tmp_path)
    with caplog.at_level(logging.WARNING):
        check_same(tmp_path)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("worker_svc")]
    assert len(messages) == 1
    assert "tie_word_embeddings" in messages[0]


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_absent_fields_have_the_defaults_of_transformers(tmp_path: Path, kind: str) -> None:
    theirs = AutoConfig.for_model(kind)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    ours = ModelConfig.from_dir(tmp_path)
    assert ours.vocab_size == theirs.vocab_size
    assert ours.hidden_size == theirs.hidden_size
    assert ours.intermediate_size == theirs.intermediate_size
    assert ours.num_layers == theirs.num_hidden_layers
    assert ours.num_heads == theirs.num_attention_heads
    assert ours.num_kv_heads == theirs.num_key_value_heads
    assert ours.head_dim == getattr(theirs, "head_dim", theirs.hidden_size // theirs.num_attention_heads)
    assert ours.rms_norm_eps == theirs.rms_norm_eps
    assert ours.rope.theta == theirs.rope_parameters["rope_theta"]
    assert ours.tied_embeddings is theirs.tie_word_embeddings
    window = getattr(theirs, "sliding_window", None)
    assert ours.max_positions == min(theirs.max_position_embeddings, window or theirs.max_position_embeddings)
    assert ours.eos_ids == ({theirs.eos_token_id} if theirs.eos_token_id is not None else set())


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_context_ends_where_a_layer_slides(tmp_path: Path, kind: str, first: int) -> None:
    raw: dict[str, Any] = {
        "model_type": kind,
        "num_hidden_layers": 2,
        "use_sliding_window": True,
        "sliding_window": 64,
        "max_window_layers": first,
    }
    (tmp_path / "config.json").write_text(json.dumps(raw))
    slides = "sliding_attention" in AutoConfig.from_pretrained(tmp_path).layer_types
    assert ModelConfig.from_dir(tmp_path).max_positions == (64 if slides else 32768)
