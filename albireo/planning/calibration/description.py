"""The device of a calibration without what is fitted to steps: its limits and its memory."""

from __future__ import annotations

from pathlib import Path

import torch

from albireo.planning.calibration.fits import START, START_SAMPLING
from albireo.planning.calibration.limits import multiply_rate, read_bandwidth
from albireo.planning.calibration.measure import Setting
from worker_svc.collectives.tp_group import compute_threads
from worker_svc.cost.device import Device, Tier
from worker_svc.cost.memory import GPU_MEMORY_SHARE, activation_bytes, kv_block_bytes
from worker_svc.cost.shape import ModelShape
from worker_svc.kv_tiers.disk_speed import directory_speed
from worker_svc.main import DTYPES
from worker_svc.model.config import ModelConfig
from worker_svc.runner.main_memory import available_memory

UNKNOWN_MEMORY = 8 << 30
"""Taken for free where the operating system does not say."""
STEP_TOKENS = 2048
"""Most tokens of one step: the scheduler's default."""


def describe(setting: Setting, most_ranks: int) -> Device:
    """Limits as measured, and tables from which the fits start. On CPUs ranks share the memory."""
    kind = torch.device(setting.device)
    if kind.type == "cuda":
        name, memory = torch.cuda.get_device_name(kind), torch.cuda.get_device_properties(kind).total_memory
    else:
        torch.set_num_threads(compute_threads(1))
        name, memory = "cpu", (available_memory() or UNKNOWN_MEMORY) // most_ranks
    return Device(
        name=name,
        kind=setting.device,
        dtype=setting.dtype,
        source="albireo calibrate: limits as one process measured them, all else fitted to a stack's steps",
        memory_gib=memory / 2**30,
        gb_per_second=read_bandwidth(kind) / 1e9,
        tflops=multiply_rate(kind, DTYPES[setting.dtype]) / 1e12,
        efficiency=(START,),
        sampling=(START_SAMPLING,),
    )


def disk_tier(directory: Path, size: int) -> Tier:
    """``size``: bytes of each rank. Raises ValueError for a directory that cannot be written."""
    try:
        speed = directory_speed(directory)
    except OSError as error:
        raise ValueError(f"--kv-disk {directory}: {error.strerror}") from None
    read, write = speed.read / 1e9, speed.write / 1e9
    return Tier(name="disk", gib=size / 2**30, read_gb_per_second=read, write_gb_per_second=write)


def reserved_gib(device: Device, config: ModelConfig, setting: Setting, num_blocks: int) -> float:
    """What of a rank's memory is neither weights, activations nor KV, if it has ``num_blocks`` KV blocks."""
    shape = ModelShape(config, setting.tp, device.dtype_bytes)
    taken = shape.weight_bytes
    taken += activation_bytes(shape, max_seqs=setting.max_seqs, max_step_tokens=STEP_TOKENS)
    taken += (num_blocks + 0.5) * kv_block_bytes(shape)
    return max(0.0, device.memory_gib * GPU_MEMORY_SHARE - taken / 2**30)
