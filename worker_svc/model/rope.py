"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864) with the scalings of Llama checkpoints."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worker_svc.model.config import RopeConfig


def inverse_frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    """``[head_dim / 2]`` angles per position, fp32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    inverse = 1.0 / (config.theta**exponents)
    if config.kind == "linear":
        return inverse / config.factor
    if config.kind == "llama3":
        return _llama3(config, inverse)
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


class RotaryTable:
    """Cosines and sines of every position, looked up once a step."""

    def __init__(
        self, config: RopeConfig, head_dim: int, max_positions: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        angles = torch.outer(torch.arange(max_positions).float(), inverse_frequencies(config, head_dim))
        self._cos = angles.cos().to(device, dtype)
        self._sin = angles.sin().to(device, dtype)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``[n, 1, head_dim / 2]`` of ``positions`` ``[n]``."""
        return (
            self._cos.index_select(0, positions).unsqueeze(1),
            self._sin.index_select(0, positions).unsqueeze(1),
        )


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates ``[n, heads, head_dim]``; the pairs are the two halves of a head, as in HF checkpoints."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
