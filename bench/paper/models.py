"""The shapes of the paper's models: what a cost model needs of their ``config.json``, as published."""

from __future__ import annotations

from worker_svc.model.config import ModelConfig
from worker_svc.model.rope_config import RopeConfig


def _config(
    family: str, layers: int, hidden: int, intermediate: int, heads: tuple[int, int], vocab: int, context: int
) -> ModelConfig:
    """``heads``: query and KV heads."""
    qwen = family == "Qwen2"
    return ModelConfig(
        architecture=f"{family}ForCausalLM",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=layers,
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_dim=128,
        rms_norm_eps=1e-5,
        max_positions=context,
        rope=RopeConfig("default", 10_000.0),
        qkv_bias=qwen,
        output_bias=False,
        mlp_bias=False,
        qk_norm=False,
        tied_embeddings=False,
        eos_ids=frozenset(),
    )


MODELS = {
    "Llama2-7B": _config("Llama", 32, 4096, 11008, (32, 32), 32000, 4096),
    "Llama2-13B": _config("Llama", 40, 5120, 13824, (40, 40), 32000, 4096),
    "Qwen2.5-7B": _config("Qwen2", 28, 3584, 18944, (28, 4), 152064, 32768),
    "Qwen2.5-14B": _config("Qwen2", 48, 5120, 13824, (40, 8), 152064, 32768),
    "Qwen2.5-32B": _config("Qwen2", 64, 5120, 27648, (40, 8), 152064, 32768),
    "Llama3.1-70B": _config("Llama", 80, 8192, 28672, (64, 8), 128256, 131072),
    "Qwen2.5-72B": _config("Qwen2", 80, 8192, 29568, (64, 8), 152064, 32768),
}
