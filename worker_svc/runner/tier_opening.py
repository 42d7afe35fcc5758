"""Opens the KV tiers of a rank, as its options ask for them. A runner calls it when it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from albireo.contract.tiers import TierShape
from albireo.runtime.kv_memory import KvMemory
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kv_tiers.copies import Copies, CpuCopies
from worker_svc.kv_tiers.disk import DiskTier
from worker_svc.kv_tiers.host import HostTier, host_storage
from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.transfers import KvTransfers
from worker_svc.model.kv_cache import KVCache
from worker_svc.runner.agreement import agree_on_blocks, agree_on_contents, agree_on_tiers, slowest
from worker_svc.runner.main_memory import UNKNOWN_MEMORY, available_memory

AUTO_SHARE = 0.25
"""Of the main memory that is free, what auto gives to the host tiers of a machine with GPUs."""


@dataclass(frozen=True, slots=True)
class TierOptions:
    """Of each rank."""

    host: KvMemory | None  # None: no such tier
    disk: Path | None
    disk_bytes: int


def open_tiers(
    options: TierOptions | Callable[[KvLayout], Sequence[Tier]],
    layout: KvLayout,
    group: TPGroup,
    device: torch.device,
    local_ranks: int,
) -> Sequence[Tier]:
    """The fastest first. Called by all ranks, ``local_ranks`` of which share this machine. Raises TierError,
    which names the option."""
    if not isinstance(options, TierOptions):
        return options(layout)
    tiers: list[Tier] = []
    free = (available_memory() or UNKNOWN_MEMORY) // local_ranks
    frames = agree_on_blocks(_host_bytes(options.host, device, free) // layout.block_bytes, group, device)
    if frames or (options.host is not None and options.host.size is not None):
        pinned = device.type == "cuda"
        tiers.append(HostTier(host_storage(frames * layout.block_bytes, layout, pinned=pinned)))
    if options.disk is not None:
        tiers.append(DiskTier.open(options.disk, options.disk_bytes, layout))
    agree_on_tiers(tiers, group, device)
    return tiers


def begin_transfers(
    tiers: Sequence[Tier], layout: KvLayout, cache: KVCache, num_blocks: int, group: TPGroup
) -> tuple[KvTransfers, tuple[TierShape, ...]]:
    """Also what the group announces: of each tier the speed of its slowest rank. Called by all ranks.

    ``num_blocks``: of ``cache``, those that plans may name.
    """
    device = cache.storage.device
    for tier in tiers:
        agree_on_contents(tier, group, device)
    if device.type == "cuda":
        from worker_svc.kv_tiers.cuda_copies import CudaCopies  # needed on CUDA only

        copies: Copies = CudaCopies(cache)
    else:
        copies = CpuCopies(cache)
    transfers = KvTransfers(tiers, copies, layout, num_blocks)
    shapes = tuple(
        TierShape(tier.name, tier.frames, *(slowest(seconds, group, device) for seconds in tier.measure()))
        for tier in tiers
    )
    return transfers, shapes


def _host_bytes(memory: KvMemory | None, device: torch.device, free: int) -> int:
    if memory is None:
        return 0
    if memory.size is not None:
        return memory.size
    if memory.share is not None:
        return int(free * memory.share)
    return int(free * AUTO_SHARE) if device.type == "cuda" else 0
