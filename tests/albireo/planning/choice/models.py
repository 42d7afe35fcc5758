"""Public models' ``config.json``, as far as the planner reads it, and outcomes that are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from albireo.planning.choice.outcome import Outcome
from albireo.planning.choice.split import Split

CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen2.5-32B-Instruct": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 5120,
        "intermediate_size": 27648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "eos_token_id": 151645,
    },
    "Llama-3.1-70B": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "eos_token_id": 128001,
    },
}


def write_model(folder: Path, name: str, **changes: Any) -> Path:
    """The directory of a model without weights."""
    directory = folder / name
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({**CONFIGS[name], **changes}))
    return directory


FOUR_PAIRS = Split(2, 4)


def outcome(split: Split = FOUR_PAIRS, **fields: Any) -> Outcome:
    """One of 4,000 tokens/s on 8 devices: 2 ms of device time a token."""
    values: dict[str, Any] = {
        "split": split,
        "num_blocks": 1000,
        "slots": 256,
        "concurrency": 64,
        "requests": 256,
        "errors": {},
        "tokens_per_second": 4000.0,
        "ttft": {"p50": 0.1, "p99": 0.5},
        "tpot": {"p50": 0.02, "p99": 0.04},
        "kv_headroom": 0.5,
        "preemptions": 0,
        "hits": {},
        "recomputed": 0.0,
        "rows": 62.0,
        "terms": {"weights": 1.5e-3, "kv": 0.3e-3, "sampling": 0.2e-3},
        "joules_per_token": None,
    }
    return Outcome(**{**values, **fields})
