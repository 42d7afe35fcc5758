"""What each rank would hold: its share of the weights, and KV blocks. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from albireo.checkpoint.files import CheckpointError
from albireo.contract.plan import BLOCK_SIZE
from albireo.runtime.kv_memory import KvMemory
from albireo.tools.doctor.finding import Finding, failure, note, ok, size, warning
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.main import DTYPES
from worker_svc.model.checkpoint import Headers
from worker_svc.model.config import ModelConfig
from worker_svc.model.loader import Loader
from worker_svc.runner.kv_sizing import CPU_SHARE, Sizing
from worker_svc.runner.main_memory import available_memory
from worker_svc.settings import WorkerSettings

FULL = 0.9
"""Share of what is free from which activations and the rest may not fit beside weights and KV."""


def rank_bytes(directory: Path, config: ModelConfig, tp: int, dtype: torch.dtype) -> int:
    """Bytes of the weights on rank 0, which holds as much as any. Raises CheckpointError where a tensor is
    missing, cut off, or of another shape than the config's."""
    headers = Headers(directory, dtype)
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
    if settings.device == "sim":
        return [*found, note("memory", "--device sim takes none for weights and KV")]
    room = _room(settings, tp)
    sizing = Sizing(config, tp, dtype, settings.max_seqs, min(settings.max_model_len, config.max_positions))
    granted = KvMemory.parse(settings.kv_memory)
    if room is None and granted.size is None:
        return [*found, note("kv blocks", f"{settings.kv_memory}: what is free here is not known")]
    left = 0 if room is None else max(0, room.free // room.ranks - weights)
    try:
        blocks = _num_blocks(settings, sizing, granted, left, room)
    except CheckpointError as error:
        return [*found, failure("kv blocks", str(error), "raise ALBIREO_WORKER_KV_MEMORY, or free memory")]
    found.append(_blocks(settings, sizing, blocks))
    if room is None:
        return [*found, note("memory", "what is free here is not known")]
    return [*found, _fits(room, weights, sizing.bytes_of(blocks), sizing)]


class _Room(NamedTuple):
    """What is free, and how many ranks share it."""

    free: int
    total: int
    ranks: int
    where: str


def _room(settings: WorkerSettings, tp: int) -> _Room | None:
    """A stack that runs already has taken its own."""
    if settings.device != "cuda":
        free = available_memory()
        return None if free is None else _Room(free, free, tp, "this machine")
    if not torch.cuda.is_available():
        return None
    free, total = min(torch.cuda.mem_get_info(index) for index in range(torch.cuda.device_count()))
    return _Room(free, total, 1, "the fullest GPU")


def _num_blocks(
    settings: WorkerSettings, sizing: Sizing, granted: KvMemory, left: int, room: _Room | None
) -> int:
    """As a worker counts them, which knows besides what its steps take on a GPU."""
    if granted.size is not None:  # whether it fits is a finding of its own
        return sizing.blocks(granted, granted.size, 1.0)
    if room is not None and settings.device == "cuda":
        kept = int((1 - settings.gpu_memory_share) * room.total)
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


def _fits(room: _Room, weights: int, kv: int, sizing: Sizing) -> Finding:
    taken = room.ranks * (weights + kv)
    found = (
        f"{size(taken)} for weights and KV of {room.ranks} rank(s), {size(room.free)} free on {room.where}"
    )
    if taken <= FULL * room.free:
        return ok("memory", found)
    left = max(0, int(FULL * room.free) // room.ranks - weights)
    if left < sizing.bytes_of(1):
        advice = "not even the weights fit: a smaller model, a larger --tp on more machines, or bfloat16"
    else:
        advice = f"lower ALBIREO_WORKER_KV_MEMORY to {left >> 20}MiB or less"
    if taken > room.free:
        return failure("memory", found, advice)
    return warning("memory", found, advice)
