"""Writes a checkpoint of a known model's shape with random weights, as slow and as large as the real one.

python -m bench.throughput.random_checkpoint /tmp/qwen
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file

from albireo.models import TINY

QWEN25_05B = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "eos_token_id": 151645,
}
TOKENIZER = TINY / "tokenizer.json"


def write_qwen(directory: Path, seed: int = 0) -> None:
    """Qwen2.5-0.5B's shape in bf16, about 1 GB. Its tokenizer is the bundled one: most ids have no text."""
    torch.manual_seed(seed)
    hidden, inner, layers = 896, 4864, 24
    q_size, kv_size = 14 * 64, 2 * 64

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.bfloat16) * 0.02

    ones = torch.ones(hidden, dtype=torch.bfloat16)
    tensors = {"model.embed_tokens.weight": random(151936, hidden), "model.norm.weight": ones}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, size in (("q", q_size), ("k", kv_size), ("v", kv_size)):
            tensors[f"{prefix}self_attn.{name}_proj.weight"] = random(size, hidden)
            tensors[f"{prefix}self_attn.{name}_proj.bias"] = random(size)
        tensors[f"{prefix}self_attn.o_proj.weight"] = random(hidden, q_size)
        for name in ("gate", "up"):
            tensors[f"{prefix}mlp.{name}_proj.weight"] = random(inner, hidden)
        tensors[f"{prefix}mlp.down_proj.weight"] = random(hidden, inner)
        for name in ("input", "post_attention"):
            tensors[f"{prefix}{name}_layernorm.weight"] = ones.clone()
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(QWEN25_05B, indent=2) + "\n")
    shutil.copy(TOKENIZER, directory / "tokenizer.json")


def main(
    directory: Annotated[Path, typer.Argument(help="Directory to write.")],
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
) -> None:
    """Writes random weights of Qwen2.5-0.5B's shape."""
    write_qwen(directory, seed)


if __name__ == "__main__":
    typer.run(main)
