"""What each rank would hold: its share of the weights, and KV blocks. Imports torch."""

from __future__ import annotations

from pathlib import Path

import torch

from albireo.checkpoint_files import CheckpointError
from albireo.cli.doctor.finding import Finding, failure, note, ok, size, warning
from albireo.cli.doctor.limits import available_memory
from albireo.plan import BLOCK_SIZE
from worker_svc.main import DTYPES
from worker_svc.model.checkpoint import Headers
from worker_svc.model.config import ModelConfig
from worker_svc.model.kv_cache import block_bytes, blocks_in
from worker_svc.model.loader import Loader
from worker_svc.model.parallel import TPGroup
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
    kv = settings.kv_memory_mib << 20
    try:
        blocks = blocks_in(kv, config, tp, dtype)
    except CheckpointError as error:
        return [*found, failure("kv blocks", str(error), "raise ALBIREO_WORKER_KV_MEMORY_MIB")]
    return [*found, _blocks(settings, config, blocks), _room(settings, config, tp, weights, kv)]


def _blocks(settings: WorkerSettings, config: ModelConfig, blocks: int) -> Finding:
    tokens, longest = blocks * BLOCK_SIZE, min(settings.max_model_len, config.max_positions)
    whole = tokens / longest
    found = (
        f"{settings.kv_memory_mib} MiB a rank: {blocks} blocks, {tokens} tokens, "
        f"{whole:.1f} requests of {longest} tokens; {settings.max_seqs} slots"
    )
    if whole < 1:
        return warning(
            "kv blocks",
            found,
            f"raise ALBIREO_WORKER_KV_MEMORY_MIB: no request may be longer than {tokens} tokens",
        )
    if tokens // settings.max_seqs < BLOCK_SIZE:
        return warning(
            "kv blocks",
            found,
            "raise ALBIREO_WORKER_KV_MEMORY_MIB, or lower ALBIREO_WORKER_MAX_SEQS: there are more slots than "
            "blocks, so requests will be preempted and computed again",
        )
    return ok("kv blocks", found)


def _room(settings: WorkerSettings, config: ModelConfig, tp: int, weights: int, kv: int) -> Finding:
    """What is free against what ranks will take; a stack that runs already has taken its own."""
    if settings.device == "cuda":
        if not torch.cuda.is_available():
            return note("memory", "no GPU to look at")
        free = min(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
        ranks, where = 1, "the fullest GPU"
    else:
        available = available_memory()
        if available is None:
            return note("memory", "what is free on this machine is not known")
        free, ranks, where = available, tp, "this machine"
    taken = ranks * (weights + kv)
    found = f"{size(taken)} for weights and KV of {ranks} rank(s), {size(free)} free on {where}"
    if taken <= FULL * free:
        return ok("memory", found)
    left = max(0, int(FULL * free) // ranks - weights)
    if left < block_bytes(config, tp, DTYPES[settings.dtype]):
        advice = "not even the weights fit: a smaller model, a larger --tp on more machines, or bfloat16"
    else:
        advice = f"lower ALBIREO_WORKER_KV_MEMORY_MIB to {left >> 20} or less"
    if taken > free:
        return failure("memory", found, advice)
    return warning("memory", found, advice)
