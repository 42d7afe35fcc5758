"""The context of a group that is described and not there. The commands that simulate groups ask for it."""

from __future__ import annotations

from worker_svc.model.config import ModelConfig

WORKER_CONTEXT = 8192
"""The default of a worker's ``--max-model-len``."""


def context_of(config: ModelConfig, asked: int) -> int:
    """Most tokens of one request; ``asked``: 0 for what a worker takes by default. Raises ValueError."""
    if asked > config.max_positions:
        raise ValueError(f"max_model_len: {asked} tokens; the model takes {config.max_positions}")
    return asked or min(WORKER_CONTEXT, config.max_positions)
