"""Model configs that the tests of the cost model compute with."""

from __future__ import annotations

from dataclasses import replace

from albireo.models import TINY
from worker_svc.model.config import ModelConfig

QWEN_32B = replace(
    ModelConfig.from_dir(TINY),
    architecture="Qwen2ForCausalLM",
    vocab_size=152_064,
    hidden_size=5120,
    intermediate_size=27_648,
    num_layers=64,
    num_heads=40,
    num_kv_heads=8,
    head_dim=128,
    tied_embeddings=False,
)
"""Qwen2.5-32B."""
