"""How many ids a checkpoint's model has, for the tiers that read its config.json."""

from __future__ import annotations

from typing import Any

DEFAULTS = {"llama": 32000, "mistral": 32000, "qwen2": 151936, "qwen3": 151936}
"""By ``model_type``: what the config classes of transformers 5 take where ``vocab_size`` is absent."""


def default_vocab_size(config: dict[str, Any]) -> int | None:
    """Of the family that ``model_type`` names, or ``architectures`` where that is absent; None: unknown."""
    kind = config.get("model_type")
    if not kind:
        names = config.get("architectures")
        name = str(names[0]) if isinstance(names, list) and names else ""
        kind = name.lower().removesuffix("forcausallm").removesuffix("model")
    return DEFAULTS.get(kind) if isinstance(kind, str) else None
