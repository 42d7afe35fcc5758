"""Shapes of models that a session measures: what their ``config.json`` says, without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from albireo.checkpoint.files import CONFIG, read_json
from albireo.models import TINY
from bench.throughput.random_checkpoint import QWEN25_05B

LLAMA31_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": LLAMA31_8B,
    "qwen2.5-0.5b": QWEN25_05B,
    "tiny": {**read_json(TINY / CONFIG), "max_position_embeddings": 4096},
}
"""``tiny``: the bundled model's, with contexts as long as the longest prompt that is measured."""


def write_shape(name: str, directory: Path) -> None:
    """Writes the ``config.json`` of one of ``SHAPES``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(json.dumps(SHAPES[name], indent=2) + "\n", encoding="utf-8")
