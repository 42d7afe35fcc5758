"""Random weights of any shape, made on the device as a runner's layers ask for them: no file holds them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from worker_svc.model.config import ModelConfig
from worker_svc.model.loader import HEAD
from worker_svc.model.weight_reader import WHOLE, Slice

SPREAD = 0.02
"""Standard deviation of a matrix."""


class RandomWeights:
    """What :class:`worker_svc.model.weight_reader.Weights` is, of the model that ``directory`` configures."""

    def __init__(self, directory: Path, device: torch.device, dtype: torch.dtype, seed: int = 0) -> None:
        """Seeds torch's generators. Raises CheckpointError for a ``config.json`` that is not supported."""
        self.directory = directory
        self._tied = ModelConfig.from_dir(directory).tied_embeddings
        self._like = torch.empty(0, device=device, dtype=dtype)
        torch.manual_seed(seed)

    def __contains__(self, name: str) -> bool:
        return not (self._tied and name == HEAD)

    def unread(self) -> list[str]:
        return []

    def read(self, name: str, shape: tuple[int, ...], part: Slice = WHOLE) -> Tensor:
        """Another one at each call. Scales of norms are 1."""
        dim, start, size = part
        length = shape[dim] - start if size < 0 else min(size, shape[dim] - start)
        wanted = (*shape[:dim], length, *shape[dim + 1 :])
        if name.endswith("norm.weight"):
            return self._like.new_ones(wanted)
        return self._like.new_empty(wanted).normal_(0, SPREAD)

    def read_quantized(self, name: str, shape: tuple[int, ...], part: Slice = WHOLE) -> None:
        """They are not quantized."""
