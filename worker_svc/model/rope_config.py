"""What a config.json says of the rotary position embedding.

Names, defaults and precedence are those of ``modeling_rope_utils.py`` of transformers 5: ``rope_scaling``
goes before ``rope_parameters``, and what stands in either before the config's own fields; only
``original_max_position_embeddings`` of the config goes first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from albireo.checkpoint.files import CheckpointError
from worker_svc.model.fields import Fields

KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
LEGACY = {"su": "longrope"}  # as Phi-3 was first published
ORIGINAL = "original_max_position_embeddings"


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding: kind and numbers of its scaling."""

    kind: str  # one of KINDS
    theta: float
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_positions: int = 0
    attention_factor: float = 1.0  # cosines and sines are multiplied by it
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()  # longrope: [head_dim / 2], up to the original positions
    long_factors: tuple[float, ...] = ()  # longrope: beyond them

    @property
    def max_positions(self) -> int:
        """Positions that yarn was made for, which a config's own maximum may leave out; else 0."""
        return int(self.factor * self.original_max_positions) if self.kind == "yarn" else 0


def rope_config(config: Fields, *, theta: float, positions: int, head_dim: int) -> RopeConfig:
    """``theta``: the family's; ``positions``: ``max_position_embeddings``. Raises CheckpointError."""
    scaling = config.fields("rope_scaling") or config.fields("rope_parameters")
    theta = config.number("rope_theta", theta)
    if config.number("partial_rotary_factor", 1.0) != 1.0:
        raise config.wrong("partial_rotary_factor", "not supported")
    if scaling is None:
        return RopeConfig("default", theta)
    if scaling.number("partial_rotary_factor", 1.0) != 1.0:
        raise scaling.wrong("partial_rotary_factor", "not supported")
    if "full_attention" in scaling or "sliding_attention" in scaling:
        raise CheckpointError(f"{scaling.where}: a set of its own for each layer type is not supported")
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    kind = LEGACY.get(kind, kind)
    theta = scaling.number("rope_theta", theta)
    if kind not in KINDS:
        raise scaling.wrong("rope_type", f"{kind!r}; supported: {', '.join(KINDS)}")
    if kind == "default":
        return RopeConfig(kind, theta)
    if kind in ("linear", "dynamic"):
        return RopeConfig(kind, theta, factor=scaling.number("factor"))
    original = config.count(ORIGINAL, scaling.count(ORIGINAL, positions))
    if kind == "llama3":
        return RopeConfig(
            kind,
            theta,
            factor=scaling.number("factor"),
            low_freq_factor=scaling.number("low_freq_factor"),
            high_freq_factor=scaling.number("high_freq_factor"),
            original_max_positions=original,
        )
    factor = scaling.number("factor", positions / original)
    return (
        _yarn(scaling, theta, factor, original)
        if kind == "yarn"
        else _longrope(scaling, theta, factor, original, head_dim)
    )


def _yarn(scaling: Fields, theta: float, factor: float, original: int) -> RopeConfig:
    if not scaling.given("factor"):  # null stands for the ratio of the positions, absent is a mistake
        raise scaling.wrong("factor", "missing")
    default = _magnitude(factor)
    scales = [_number_or_zero(scaling, name, 0.0) for name in ("mscale", "mscale_all_dim")]
    if all(scales):
        default = _magnitude(factor, scales[0]) / _magnitude(factor, scales[1])
    return RopeConfig(
        "yarn",
        theta,
        factor=factor,
        original_max_positions=original,
        attention_factor=scaling.number("attention_factor", default),
        beta_fast=_number_or_zero(scaling, "beta_fast", 32.0),
        beta_slow=_number_or_zero(scaling, "beta_slow", 1.0),
        truncate=scaling.flag("truncate", not scaling.given("truncate")),  # null is false
    )


def _number_or_zero(scaling: Fields, name: str, default: float) -> float:
    """Zero counts as absent, as in transformers."""
    return default if scaling.raw(name) == 0 else scaling.number(name) if name in scaling else default


def _magnitude(factor: float, scale: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _longrope(scaling: Fields, theta: float, factor: float, original: int, head_dim: int) -> RopeConfig:
    default = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return RopeConfig(
        "longrope",
        theta,
        factor=factor,
        original_max_positions=original,
        attention_factor=scaling.number("attention_factor", default),
        short_factors=scaling.numbers("short_factor", head_dim // 2),
        long_factors=scaling.numbers("long_factor", head_dim // 2),
    )
