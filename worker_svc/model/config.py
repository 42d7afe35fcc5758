"""What a checkpoint's ``config.json`` says, as far as serving it needs to know."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


class CheckpointError(ValueError):
    """A checkpoint that cannot be served; the message names the file or field."""


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding: kind and numbers of its scaling."""

    kind: str  # default, linear, llama3
    theta: float
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_positions: int = 0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One of the supported decoder-only families; they differ in biases and q/k norms only."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_positions: int
    rope: RopeConfig
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    tied_embeddings: bool
    eos_ids: frozenset[int]

    @classmethod
    def from_dir(cls, directory: Path) -> ModelConfig:
        """Raises CheckpointError for a missing file, and for what is not supported."""
        if not directory.is_dir():
            raise CheckpointError(f"{directory}: no such directory")
        raw = read_json(directory / "config.json")
        try:
            return _parse(raw, directory)
        except KeyError as error:
            raise CheckpointError(f"{directory / 'config.json'}: field {error} is missing") from None

    def check_tp(self, tp: int) -> None:
        """Raises CheckpointError for what ``tp`` ranks cannot divide. The vocabulary is padded instead."""
        for name, value in (
            ("num_attention_heads", self.num_heads),
            ("num_key_value_heads", self.num_kv_heads),
            ("intermediate_size", self.intermediate_size),
        ):
            if value % tp:
                raise CheckpointError(f"{name} = {value} cannot be divided by a TP degree of {tp}")


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError where there is no such file, or no JSON object in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value


def _parse(raw: dict[str, Any], directory: Path) -> ModelConfig:
    where = directory / "config.json"
    architecture = (raw.get("architectures") or ["none"])[0]
    if architecture not in ARCHITECTURES:
        raise CheckpointError(f"{where}: architecture {architecture}; supported: {', '.join(ARCHITECTURES)}")
    if "quantization_config" in raw:
        raise CheckpointError(f"{where}: quantization_config: quantized checkpoints are not supported")
    if raw.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{where}: hidden_act {raw['hidden_act']!r}; supported: silu")
    llama, qwen2 = architecture == "LlamaForCausalLM", architecture == "Qwen2ForCausalLM"
    attention_bias = bool(raw.get("attention_bias", False))
    if attention_bias and not llama:
        raise CheckpointError(f"{where}: attention_bias is not supported for {architecture}")
    num_heads = raw["num_attention_heads"]
    return ModelConfig(
        architecture=architecture,
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=num_heads,
        num_kv_heads=raw.get("num_key_value_heads") or num_heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // num_heads,
        rms_norm_eps=raw["rms_norm_eps"],
        max_positions=_max_positions(raw),
        rope=_rope(raw, where),
        qkv_bias=qwen2 or attention_bias,
        output_bias=attention_bias,
        mlp_bias=llama and bool(raw.get("mlp_bias", False)),
        qk_norm=architecture == "Qwen3ForCausalLM",
        tied_embeddings=bool(raw.get("tie_word_embeddings", False)),
        eos_ids=_eos_ids(raw, directory),
    )


def _max_positions(raw: dict[str, Any]) -> int:
    """The context within which full attention is what the model means: a sliding window ends it."""
    positions = int(raw["max_position_embeddings"])
    window = raw.get("sliding_window")
    # Mistral slides whenever a window is given; Qwen only where it is told to.
    if window is not None and raw.get("use_sliding_window", raw.get("model_type") == "mistral"):
        positions = min(positions, int(window))
    return positions


def _rope(raw: dict[str, Any], where: Path) -> RopeConfig:
    # transformers 5 writes `rope_parameters`; earlier ones `rope_theta` and `rope_scaling`.
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    theta = float(scaling.get("rope_theta", raw.get("rope_theta", 10000.0)))
    if raw.get("partial_rotary_factor", scaling.get("partial_rotary_factor", 1.0)) != 1.0:
        raise CheckpointError(f"{where}: partial_rotary_factor is not supported")
    if kind == "default":
        return RopeConfig(kind, theta)
    if kind == "linear":
        return RopeConfig(kind, theta, factor=float(scaling["factor"]))
    if kind == "llama3":
        return RopeConfig(
            kind,
            theta,
            factor=float(scaling["factor"]),
            low_freq_factor=float(scaling["low_freq_factor"]),
            high_freq_factor=float(scaling["high_freq_factor"]),
            original_max_positions=int(scaling["original_max_position_embeddings"]),
        )
    raise CheckpointError(f"{where}: rope type {kind!r}; supported: default, linear, llama3")


def _eos_ids(raw: dict[str, Any], directory: Path) -> frozenset[int]:
    """``generation_config.json`` has the last word; a model may name one end token, several or none."""
    generation = directory / "generation_config.json"
    found = read_json(generation).get("eos_token_id") if generation.exists() else None
    if found is None:
        found = raw.get("eos_token_id")
    if found is None:
        return frozenset()
    return frozenset(found if isinstance(found, list) else [found])
