"""How many KV blocks fit on a device that is described, not there. The planner and simulated ranks ask it.

On a real device :mod:`worker_svc.runner.kv_sizing` measures it.
"""

from __future__ import annotations

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from worker_svc.cost.device import Device
from worker_svc.cost.shape import ModelShape
from worker_svc.model.config import ModelConfig

GPU_MEMORY_SHARE = 0.9
"""The default of ``--gpu-memory-share``."""
KV_COPIES = 2
"""A layer copies the blocks of a step's rows before it attends to them, padded to at most twice as many: of
blocks whose number follows from what is free, as much memory as in two layers stays free for that."""
LOGITS_BYTES = 4
"""Sampling computes in float32."""
LOGITS_COPIES = 3
"""Logits, what the controls make of them, and probabilities."""


def activation_bytes(shape: ModelShape, *, max_seqs: int, max_step_tokens: int) -> float:
    """Most bytes of one step's intermediate results on a rank: those of one layer, or the logits.

    A layer holds the hidden states three times (residual, normed, sum) and two arrays of the MLP.
    """
    config = shape.config
    row = 3 * config.hidden_size + 2 * config.intermediate_size / shape.tp
    layer = max_step_tokens * row * shape.dtype_bytes
    logits = max_seqs * config.vocab_size * LOGITS_BYTES * LOGITS_COPIES
    return max(layer, logits)


def kv_block_bytes(shape: ModelShape) -> float:
    """What a KV block takes of a rank's memory, with its share of the copies."""
    layers = shape.config.num_layers
    return BLOCK_SIZE * shape.kv_token_bytes * (layers + KV_COPIES) / layers


def useful_blocks(max_seqs: int, max_model_len: int) -> int:
    """What full slots can use, and the same again for prefixes that stay in the cache."""
    return 2 * max_seqs * blocks_for(max_model_len)


def kv_blocks(
    device: Device,
    config: ModelConfig,
    tp: int,
    *,
    max_seqs: int,
    max_step_tokens: int = 2048,
    gpu_memory_share: float = GPU_MEMORY_SHARE,
    dtype_bytes: int | None = None,
) -> int:
    """Blocks of 16 tokens on each rank. ``dtype_bytes``: of a number, if not the device's. Raises ValueError
    where the weights leave nothing for them."""
    shape = ModelShape(config, tp, dtype_bytes or device.dtype_bytes)
    activations = activation_bytes(shape, max_seqs=max_seqs, max_step_tokens=max_step_tokens)
    usable = (device.memory_gib * gpu_memory_share - device.reserved_gib) * 2**30
    blocks = int((usable - shape.weight_bytes - activations) // kv_block_bytes(shape))
    if blocks < 1:
        devices = f"{tp} device" if tp == 1 else f"{tp} devices"
        raise ValueError(
            f"the model does not fit: weights {tp * shape.weight_bytes / 1e9:.1f} GB over {devices} "
            f"of {device.memory_gib * 2**30 / 1e9:.1f} GB ({device.name}); of each, "
            f"{max(0.0, usable) / 1e9:.1f} GB are usable, and a step of {max_seqs} slots needs "
            f"{activations / 1e9:.1f} GB"
        )
    return blocks
