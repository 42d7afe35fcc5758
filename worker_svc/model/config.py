"""The configuration of a model: what serving needs to know of a checkpoint's ``config.json``.

A rank reads it when it starts, and the doctor before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from albireo.checkpoint.files import CONFIG, CheckpointError, check_directory, read_json
from worker_svc.model.end_ids import end_ids
from worker_svc.model.families import Family, family_of
from worker_svc.model.fields import Fields
from worker_svc.model.formats import WeightFormat
from worker_svc.model.quantization import stored_format
from worker_svc.model.rope_config import RopeConfig, rope_config

ACTIVATIONS = ("silu", "swish")  # two names of one function


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
    eos_ids: frozenset[int]  # all below vocab_size
    stored_weights: WeightFormat = "dtype"  # of linear layers, in the files
    warnings: tuple[str, ...] = ()  # what is not as it should be, and is served all the same

    @classmethod
    def from_dir(cls, directory: Path) -> ModelConfig:
        """Raises CheckpointError for a missing file, and for what is not supported."""
        check_directory(directory)
        return _parse(directory)

    def check_tp(self, tp: int) -> None:
        """Raises CheckpointError for what ``tp`` ranks cannot divide. The vocabulary is padded instead."""
        for name, value in (
            ("num_attention_heads", self.num_heads),
            ("num_key_value_heads", self.num_kv_heads),
            ("intermediate_size", self.intermediate_size),
        ):
            if value % tp:
                raise CheckpointError(f"{name} = {value} cannot be divided by a TP degree of {tp}")

    def row_widths(self, tp: int) -> tuple[int, int]:
        """Numbers of a row between the products of a rank: of hidden states, which are whole, and of its part
        of the intermediate units."""
        return self.hidden_size, self.intermediate_size // tp

    def divides_by(self, tp: int) -> bool:
        """Whether ``tp`` ranks can divide the model."""
        try:
            self.check_tp(tp)
        except CheckpointError:
            return False
        return True


def _parse(directory: Path) -> ModelConfig:
    raw = read_json(directory / CONFIG)
    config = Fields(raw, str(directory / CONFIG))
    family = family_of(config)
    _check_supported(config, family)
    vocab_size = config.count("vocab_size", family.vocab_size)
    num_heads = config.count("num_attention_heads", family.num_heads)
    hidden_size = config.count("hidden_size", family.hidden_size)
    num_kv_heads, head_dim = _heads(config, family, num_heads, hidden_size)
    positions = config.count("max_position_embeddings", family.max_positions)
    rope = rope_config(config, theta=family.rope_theta, positions=positions, head_dim=head_dim)
    attention_bias = family.chooses_attention_bias and config.flag("attention_bias", False)
    ends = end_ids(directory, raw, vocab_size, family.eos_id)
    return ModelConfig(
        architecture=family.architecture,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=config.count("intermediate_size", family.intermediate_size),
        num_layers=config.count("num_hidden_layers", family.num_layers),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=config.number("rms_norm_eps", family.rms_norm_eps),
        max_positions=_context(config, family, max(positions, rope.max_positions)),
        rope=rope,
        qkv_bias=family.qkv_bias or attention_bias,
        output_bias=attention_bias,
        mlp_bias=family.chooses_mlp_bias and config.flag("mlp_bias", False),
        qk_norm=family.qk_norm,
        tied_embeddings=config.flag("tie_word_embeddings", False),
        eos_ids=ends.ids,
        stored_weights=stored_format(config),
        warnings=_warnings(vocab_size, ends.ignored),
    )


def _warnings(vocab_size: int, ignored: tuple[str, ...]) -> tuple[str, ...]:
    if not ignored:
        return ()
    return (f"end tokens that are ignored, being no ids below vocab_size {vocab_size}: {'; '.join(ignored)}",)


def _check_supported(config: Fields, family: Family) -> None:
    activation = config.text("hidden_act", ACTIVATIONS[0])
    if activation not in ACTIVATIONS:
        raise config.wrong("hidden_act", f"{activation!r}; supported: {', '.join(ACTIVATIONS)}")
    if family.architecture == "MistralForCausalLM" and config.flag("attention_bias", False):
        raise config.wrong("attention_bias", f"not supported for {family.architecture}")


def _heads(config: Fields, family: Family, num_heads: int, hidden_size: int) -> tuple[int, int]:
    """KV heads and the size of a head: null means as many as heads, and an even share of the hidden size; a
    field that is absent has the family's default."""
    kv_default, dim_default = num_heads, max(1, hidden_size // num_heads)
    if not config.given("num_key_value_heads"):
        kv_default = family.num_kv_heads or kv_default
    if not config.given("head_dim"):
        dim_default = family.head_dim or dim_default
    num_kv_heads = config.count("num_key_value_heads", kv_default)
    if num_heads % num_kv_heads:
        raise config.wrong(
            "num_key_value_heads", f"{num_kv_heads} does not divide num_attention_heads, {num_heads}"
        )
    head_dim = config.count("head_dim", dim_default)
    if head_dim % 2:
        raise config.wrong("head_dim", f"{head_dim} is odd: rotary embedding turns pairs")
    return num_kv_heads, head_dim


def _context(config: Fields, family: Family, positions: int) -> int:
    """The context within which full attention is what the model means: a sliding window ends it."""
    if not _slides(config, family):
        return positions
    return min(positions, config.count("sliding_window", family.sliding_window))


def _slides(config: Fields, family: Family) -> bool:
    """Whether any layer attends to a window. Only Mistral and Qwen know the fields; null is no window."""
    if config.given("sliding_window") and "sliding_window" not in config:
        return False
    if family.always_slides:
        return True
    if family.architecture == "LlamaForCausalLM" or not config.flag("use_sliding_window", False):
        return False
    if "layer_types" in config:
        return "sliding_attention" in config.items("layer_types")
    first = config.raw("max_window_layers")
    layers = config.count("num_hidden_layers", family.num_layers)
    return first == 0 or config.count("max_window_layers", family.max_window_layers) < layers
