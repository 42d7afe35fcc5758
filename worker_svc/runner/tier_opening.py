"""Opens the KV tiers of a rank, as its options ask for them. A runner calls it when it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from albireo.runtime.kv_memory import KvMemory
from worker_svc.kv_tiers.disk import DiskTier
from worker_svc.kv_tiers.host import HostTier, host_storage
from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout

AUTO_SHARE = 0.25
"""Of the main memory that is free, what auto gives to the host tiers of a machine with GPUs."""


@dataclass(frozen=True, slots=True)
class TierOptions:
    """Of each rank."""

    host: KvMemory | None  # None: no such tier
    disk: Path | None
    disk_bytes: int


def open_tiers(
    options: TierOptions,
    layout: KvLayout,
    device: torch.device,
    free: int,
    agree: Callable[[int], int],
) -> list[Tier]:
    """The fastest first. ``free``: bytes of main memory that this rank may take. ``agree``: the least of all
    ranks' numbers. Raises TierError, which names the option."""
    tiers: list[Tier] = []
    frames = agree(_host_bytes(options.host, device, free) // layout.block_bytes)
    if frames or (options.host is not None and options.host.size is not None):
        pinned = device.type == "cuda"
        tiers.append(HostTier(host_storage(frames * layout.block_bytes, layout, pinned=pinned)))
    if options.disk is not None:
        tiers.append(DiskTier.open(options.disk, options.disk_bytes, layout))
    return tiers


def _host_bytes(memory: KvMemory | None, device: torch.device, free: int) -> int:
    if memory is None:
        return 0
    if memory.size is not None:
        return memory.size
    if memory.share is not None:
        return int(free * memory.share)
    return int(free * AUTO_SHARE) if device.type == "cuda" else 0
