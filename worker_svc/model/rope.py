"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864) with the scalings of published checkpoints.

The formulas are those of ``ROPE_INIT_FUNCTIONS`` in transformers 5, and give the same numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worker_svc.model.rope_config import RopeConfig


def inverse_frequencies(config: RopeConfig, head_dim: int, positions: int) -> Tensor:
    """``[head_dim / 2]`` angles per position, fp32, for contexts of up to ``positions`` tokens.

    dynamic (NTK) scaling begins beyond the model's own positions, which are never served: it changes nothing.
    longrope has two sets. transformers changes from one to the other within a stream, when it passes the
    original positions, although the keys in its cache were turned by the first. Here, as in vLLM, all streams
    take the set that the longest context asks for.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    if config.kind == "longrope":
        long = positions > config.original_max_positions
        stretch = torch.tensor(config.long_factors if long else config.short_factors)
        return 1.0 / (stretch * config.theta**exponents)
    inverse = 1.0 / (config.theta**exponents)
    if config.kind == "linear":
        return inverse / config.factor
    if config.kind == "llama3":
        return _llama3(config, inverse)
    if config.kind == "yarn":
        return _yarn(config, inverse, head_dim)
    return inverse


def _llama3(config: RopeConfig, inverse: Tensor) -> Tensor:
    """Llama 3.1: long wavelengths are stretched by the factor, short ones kept, those between blended."""
    wavelengths = 2 * math.pi / inverse
    original = config.original_max_positions
    smooth = (original / wavelengths - config.low_freq_factor) / (
        config.high_freq_factor - config.low_freq_factor
    )
    blended = (1 - smooth) * inverse / config.factor + smooth * inverse
    stretched = torch.where(wavelengths > original / config.low_freq_factor, inverse / config.factor, blended)
    return torch.where(wavelengths < original / config.high_freq_factor, inverse, stretched)


def _yarn(config: RopeConfig, inverse: Tensor, head_dim: int) -> Tensor:
    """YaRN (Peng et al. 2023, arXiv 2309.00071): as above, but blended along the dimensions."""

    def dimension(rotations: float) -> float:
        """Where a frequency turns so often within the original positions."""
        turns = config.original_max_positions / (rotations * 2 * math.pi)
        return head_dim * math.log(turns) / (2 * math.log(config.theta))

    low, high = dimension(config.beta_fast), dimension(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # a step, and no division by zero
    ramp = ((torch.arange(head_dim // 2).float() - low) / (high - low)).clamp(0, 1)
    return inverse / config.factor * ramp + inverse * (1 - ramp)


class RotaryTable:
    """Cosines and sines of every position, looked up once a step."""

    def __init__(
        self, config: RopeConfig, head_dim: int, max_positions: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        frequencies = inverse_frequencies(config, head_dim, max_positions)
        angles = torch.outer(torch.arange(max_positions).float(), frequencies)
        self._cos = (angles.cos() * config.attention_factor).to(device, dtype)
        self._sin = (angles.sin() * config.attention_factor).to(device, dtype)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``[n, 1, head_dim / 2]`` of ``positions`` ``[n]``."""
        return (
            self._cos.index_select(0, positions).unsqueeze(1),
            self._sin.index_select(0, positions).unsqueeze(1),
        )
