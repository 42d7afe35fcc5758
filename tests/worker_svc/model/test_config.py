"""What a checkpoint directory must say, and that a refusal names the file or field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from albireo.checkpoint.files import CheckpointError
from tests.worker_svc.checkpoints import FAMILIES, MAX_POSITIONS, SHAPE, write
from worker_svc.model.config import ModelConfig

RAW = SHAPE | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rms_norm_eps": 1e-5}


def parse(directory: Path, **fields: Any) -> ModelConfig:
    (directory / "config.json").write_text(json.dumps(RAW | fields))
    return ModelConfig.from_dir(directory)


def test_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent: no such directory"):
        ModelConfig.from_dir(tmp_path / "absent")


def test_a_missing_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        ModelConfig.from_dir(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "null"])
def test_a_config_that_is_no_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json: "):
        ModelConfig.from_dir(tmp_path)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "MixtralForCausalLM"])
def test_an_unknown_architecture(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json: architectures: {name}; supported: Llama"):
        parse(tmp_path, architectures=[name])


def test_neither_architecture_nor_model_type(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="model_type: none; supported: Llama"):
        parse(tmp_path, architectures=None, model_type=None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'; supported: silu"),
        ({"rope_scaling": {"rope_type": "mrope"}}, "rope_scaling: rope_type: 'mrope'; supported: default"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling: factor: missing"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling: factor: missing"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"model_type": "mistral", "attention_bias": True}, "attention_bias"),
    ],
)
def test_what_is_not_supported(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: {message}"):
        parse(tmp_path, **fields)


def test_rope_fields_of_old_and_new_checkpoints(tmp_path: Path) -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    old = parse(tmp_path, rope_theta=5e5, rope_scaling=scaling)
    oldest = parse(tmp_path, rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    new = parse(tmp_path, rope_parameters=scaling | {"rope_theta": 5e5})
    assert old.rope == oldest.rope == new.rope
    assert (new.rope.kind, new.rope.theta, new.rope.factor) == ("linear", 5e5, 2.0)


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        (None, None, set()),
        (2, None, {2}),
        ([2, 3], None, {2, 3}),
        (2, [5, 6], {2, 5, 6}),
        (2, 5, {2, 5}),
    ],
)
def test_end_tokens(tmp_path: Path, config: Any, generation: Any, expected: set[int]) -> None:
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    assert parse(tmp_path, eos_token_id=config).eos_ids == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model_type": "mistral", "sliding_window": 64}, 64),
        ({"model_type": "mistral", "sliding_window": None}, MAX_POSITIONS),
        ({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": False}, MAX_POSITIONS),
        (
            {
                "model_type": "qwen2",
                "sliding_window": 64,
                "use_sliding_window": True,
                "max_window_layers": 1,
            },
            64,
        ),
    ],
)
def test_context_ends_where_a_window_would_slide(
    tmp_path: Path, fields: dict[str, Any], expected: int
) -> None:
    assert parse(tmp_path, **fields).max_positions == expected


def test_heads_default_as_in_transformers(tmp_path: Path) -> None:
    config = parse(tmp_path, num_key_value_heads=None, head_dim=None)
    assert (config.num_kv_heads, config.head_dim) == (8, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 6, "num_key_value_heads": 6}, "num_attention_heads = 6"),
        ({"num_key_value_heads": 2}, "num_key_value_heads = 2"),
        ({"intermediate_size": 98}, "intermediate_size = 98"),
    ],
)
def test_what_tp_cannot_divide(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    config = parse(tmp_path, **fields)
    config.check_tp(2)
    with pytest.raises(CheckpointError, match=f"{message} cannot be divided by a TP degree of 4"):
        config.check_tp(4)


def test_tp_may_leave_the_vocabulary_undivided(tmp_path: Path) -> None:
    parse(tmp_path, vocab_size=131).check_tp(4)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_differ_where_they_should(tmp_path: Path, name: str) -> None:
    write(FAMILIES[name], tmp_path)
    config = ModelConfig.from_dir(tmp_path)
    assert config.tied_embeddings is name.endswith("tied")
    assert config.qk_norm is name.startswith("qwen3")
    assert config.qkv_bias is (name.startswith("qwen2") or name == "llama-biased")
    assert config.output_bias is config.mlp_bias is (name == "llama-biased")
