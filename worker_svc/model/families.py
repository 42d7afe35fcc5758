"""The model families that are served, and what a config of theirs leaves out.

The defaults are those of the config classes of transformers 5 (``models/<model_type>/configuration_*.py``):
a checkpoint that does not name a field was trained, or is run elsewhere, with these.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.checkpoint.vocabulary import DEFAULTS
from worker_svc.model.fields import Fields


@dataclass(frozen=True, slots=True)
class Family:
    """Numbers that hold where a config.json does not give them, and how the families differ."""

    architecture: str
    intermediate_size: int
    vocab_size: int
    max_positions: int
    num_kv_heads: int | None  # None: as many as heads
    head_dim: int | None  # None: hidden size / heads
    eos_id: int | None
    qkv_bias: bool = False
    chooses_attention_bias: bool = False  # by attention_bias: of q, k, v and the output
    chooses_mlp_bias: bool = False
    qk_norm: bool = False
    always_slides: bool = False  # wherever there is a sliding_window, in all layers

    hidden_size = 4096
    num_layers = 32
    num_heads = 32
    rms_norm_eps = 1e-6
    rope_theta = 10000.0
    sliding_window = 4096
    max_window_layers = 28


FAMILIES = {
    "llama": Family(
        "LlamaForCausalLM",
        intermediate_size=11008,
        vocab_size=DEFAULTS["llama"],
        max_positions=2048,
        num_kv_heads=None,
        head_dim=None,
        eos_id=2,
        chooses_attention_bias=True,
        chooses_mlp_bias=True,
    ),
    "mistral": Family(
        "MistralForCausalLM",
        intermediate_size=14336,
        vocab_size=DEFAULTS["mistral"],
        max_positions=131072,
        num_kv_heads=8,
        head_dim=None,
        eos_id=2,
        always_slides=True,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        intermediate_size=22016,
        vocab_size=DEFAULTS["qwen2"],
        max_positions=32768,
        num_kv_heads=32,
        head_dim=None,
        eos_id=None,
        qkv_bias=True,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        intermediate_size=22016,
        vocab_size=DEFAULTS["qwen3"],
        max_positions=32768,
        num_kv_heads=32,
        head_dim=128,
        eos_id=None,
        chooses_attention_bias=True,
        qk_norm=True,
    ),
}
"""By ``model_type``."""

# A checkpoint saved without its head names the base model; tied, it is whole all the same. In lower case:
# early conversions of Llama name LLaMAForCausalLM.
_BY_ARCHITECTURE = {
    name.lower(): family
    for family in FAMILIES.values()
    for name in (family.architecture, family.architecture.replace("ForCausalLM", "Model"))
}
SUPPORTED = ", ".join(family.architecture for family in FAMILIES.values())


def family_of(config: Fields) -> Family:
    """By ``model_type``, as transformers chooses; by ``architectures`` where that is absent.

    Raises CheckpointError for a family that is not served, and for a model of another kind (a classifier).
    """
    kind = config.text("model_type", "")
    architectures = config.items("architectures")
    named = _BY_ARCHITECTURE.get(str(architectures[0]).lower()) if architectures else FAMILIES.get(kind)
    if named is None:
        field, found = (
            ("architectures", architectures[0]) if architectures else ("model_type", kind or "none")
        )
        raise config.wrong(field, f"{found}; supported: {SUPPORTED}")
    if kind and kind not in FAMILIES:
        raise config.wrong("model_type", f"{kind}; supported: {', '.join(FAMILIES)}")
    return FAMILIES.get(kind, named)
