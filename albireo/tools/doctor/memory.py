"""Checks the memory that each rank would need: its share of the weights, and KV blocks. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from albireo.checkpoint.files import CheckpointError
from albireo.contract.plan import BLOCK_SIZE
from albireo.runtime.kv_memory import KvMemory
from albireo.tools.doctor.finding import Finding, failure, note, ok, size, warning
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kernels.choice import native_kernels, quantized_products
from worker_svc.kernels.native import NativeKernels
from worker_svc.main import DTYPES
from worker_svc.model.config import ModelConfig
from worker_svc.model.formats import WeightFormat
from worker_svc.model.kv_cache import kv_dtype
from worker_svc.model.loader import EIGHT_BITS, Loader
from worker_svc.model.weight_reader import HeaderReader
from worker_svc.runner.kv_sizing import CPU_SHARE, Sizing
from worker_svc.runner.main_memory import available_memory
from worker_svc.settings import WorkerSettings

PAGE = "docs/quantization.md"
FULL = 0.9
"""Where weights and KV take more than this share of the free memory, activations and the rest may not fit."""


def rank_bytes(directory: Path, config: ModelConfig, tp: int, dtype: torch.dtype) -> int:
    """Bytes of the weights on rank 0, which holds as much as any. Raises CheckpointError where a tensor is
    missing, cut off, or of another shape than the config's."""
    headers = HeaderReader(directory, dtype)
    Loader(config, headers, TPGroup(0, tp), torch.device("meta"), dtype, max_model_len=1).load()
    return headers.bytes


def check_memory(settings: WorkerSettings, config: ModelConfig, tp: int) -> list[Finding]:
    """``tp``: ranks on this machine, by which the model can be divided."""
    dtype = DTYPES[settings.dtype]
    try:
        weights = rank_bytes(settings.model, config, tp, dtype)
    except CheckpointError as error:
        return [failure("model tensors", str(error), "the checkpoint is not complete: fetch it again")]
    found = [ok("model tensors", f"complete; {size(weights)} a rank in {settings.dtype}")]
    formats = settings.formats
    if formats.weights != "dtype":
        check = f"{formats.weights} weights"
        if why := _no_products(settings, config, tp):
            return [*found, failure(check, f"cannot be here: {why}", f"leave --weights, or see {PAGE}")]
        weights = _bytes_in_8_bits(weights, config, tp, dtype, formats.weights)
        found.append(ok(check, f"{size(weights)} a rank"))
    if formats.kv == "int8":
        if _native(settings, config, tp) is None:
            return [*found, failure("int8 KV", "cannot be here", "leave --kv-dtype, or see docs/cpu.md")]
        found.append(ok("int8 KV", "can be here"))
    if settings.device == "sim":
        return [*found, note("memory", "--device sim needs none for weights and KV")]
    memory = _free_memory(settings, tp)
    longest = min(settings.max_model_len, config.max_positions)
    sizing = Sizing(config, tp, kv_dtype(formats, dtype), settings.max_seqs, longest)
    granted = KvMemory.parse(settings.kv_memory)
    if memory is None and granted.size is None:
        return [*found, note("kv blocks", f"{settings.kv_memory}: the free memory here is not known")]
    left = 0 if memory is None else max(0, memory.free // memory.ranks - weights)
    try:
        blocks = _num_blocks(settings, sizing, granted, left, memory)
    except CheckpointError as error:
        return [*found, failure("kv blocks", str(error), "raise ALBIREO_WORKER_KV_MEMORY, or free memory")]
    found.append(_blocks(settings, sizing, blocks))
    if memory is None:
        return [*found, note("memory", "the free memory here is not known")]
    return [*found, _fits(memory, weights, sizing.bytes_of(blocks), sizing)]


def _no_products(settings: WorkerSettings, config: ModelConfig, tp: int) -> str:
    """Why there are none with weights in the 8 bits of ``settings``; empty where there are, or where the GPU
    is not here to ask."""
    try:
        settings.formats.check_device(settings.device)
        if settings.device == "cpu" or torch.cuda.is_available():
            kind, device = EIGHT_BITS[settings.weights], torch.device(settings.device)
            quantized_products(kind, device, DTYPES[settings.dtype], _native(settings, config, tp))
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""


def _native(settings: WorkerSettings, config: ModelConfig, tp: int) -> NativeKernels | None:
    """The kernels that int8 takes; None where it cannot be."""
    if settings.device != "cpu":
        return None
    return native_kernels(torch.device("cpu"), DTYPES[settings.dtype], config.row_widths(tp), config.head_dim)


def _bytes_in_8_bits(
    weights: int, config: ModelConfig, tp: int, dtype: torch.dtype, kind: WeightFormat
) -> int:
    """``weights``: a rank's bytes in ``dtype``. The embedding stays so, and the head with fp8; a tied one
    becomes another table with int8."""
    table = config.vocab_size * config.hidden_size // tp
    tables = 1 if config.tied_embeddings else 2
    layers = weights // dtype.itemsize - tables * table
    if kind == "fp8":
        return tables * table * dtype.itemsize + layers
    return table * dtype.itemsize + table + layers


class _FreeMemory(NamedTuple):
    """Bytes of free memory, and the number of ranks that share it."""

    free: int
    total: int
    ranks: int
    where: str


def _free_memory(settings: WorkerSettings, tp: int) -> _FreeMemory | None:
    """What a stack that runs already has allocated is not free."""
    if settings.device != "cuda":
        free = available_memory()
        return None if free is None else _FreeMemory(free, free, tp, "this machine")
    if not torch.cuda.is_available():
        return None
    free, total = min(torch.cuda.mem_get_info(index) for index in range(torch.cuda.device_count()))
    return _FreeMemory(free, total, 1, "the fullest GPU")


def _num_blocks(
    settings: WorkerSettings, sizing: Sizing, granted: KvMemory, left: int, memory: _FreeMemory | None
) -> int:
    """As a worker counts them, which on a GPU also measures the memory that its steps need."""
    if granted.size is not None:  # whether it fits is a separate finding
        return sizing.blocks(granted, granted.size, 1.0)
    if memory is not None and settings.device == "cuda":
        kept = int((1 - settings.gpu_memory_share) * memory.total)
        return sizing.blocks(granted, left, 1.0, kept)
    return sizing.blocks(granted, left, CPU_SHARE)


def _blocks(settings: WorkerSettings, sizing: Sizing, blocks: int) -> Finding:
    tokens, longest = blocks * BLOCK_SIZE, sizing.max_model_len
    whole = tokens / longest
    found = (
        f"{settings.kv_memory}: {size(sizing.bytes_of(blocks))} a rank, {blocks} blocks, {tokens} tokens, "
        f"{whole:.1f} requests of {longest} tokens; {settings.max_seqs} slots"
    )
    if whole < 1:
        return warning(
            "kv blocks",
            found,
            f"raise ALBIREO_WORKER_KV_MEMORY: no request may be longer than {tokens} tokens",
        )
    if tokens // settings.max_seqs < BLOCK_SIZE:
        return warning(
            "kv blocks",
            found,
            "raise ALBIREO_WORKER_KV_MEMORY, or lower ALBIREO_WORKER_MAX_SEQS: there are more slots than "
            "blocks, so requests will be preempted and computed again",
        )
    return ok("kv blocks", found)


def _fits(memory: _FreeMemory, weights: int, kv: int, sizing: Sizing) -> Finding:
    taken = memory.ranks * (weights + kv)
    found = (
        f"{size(taken)} for weights and KV of {memory.ranks} rank(s), "
        f"{size(memory.free)} free on {memory.where}"
    )
    if taken <= FULL * memory.free:
        return ok("memory", found)
    left = max(0, int(FULL * memory.free) // memory.ranks - weights)
    if left < sizing.bytes_of(1):
        advice = "not even the weights fit: a smaller model, a larger --tp on more machines, or bfloat16"
    else:
        advice = f"lower ALBIREO_WORKER_KV_MEMORY to {left >> 20}MiB or less"
    if taken > memory.free:
        return failure("memory", found, advice)
    return warning("memory", found, advice)
