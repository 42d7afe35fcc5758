"""What the ranks of a group must have in common: checkpoint, number of KV blocks, contents of KV tiers, and
the group's name.

Every rank calls these functions when it starts, before it serves; :func:`missing_by_rank` in steps.
"""

from __future__ import annotations

import logging
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from albireo.checkpoint.files import CheckpointError, check_directory
from albireo.checkpoint.fingerprint import fingerprint
from worker_svc.collectives.tp_group import TPGroup
from worker_svc.kv_tiers.errors import TierError
from worker_svc.kv_tiers.interface import Tier
from worker_svc.model.formats import AS_THE_MODEL, Formats
from worker_svc.model.weight_files import weights_fingerprint

logger = logging.getLogger(__name__)


def agree_on_checkpoint(
    directory: Path,
    group: TPGroup,
    device: torch.device,
    *,
    weights: bool,
    formats: Formats = AS_THE_MODEL,
) -> str:
    """The fingerprint of every rank's checkpoint. Called by all ranks, before they load.

    ``weights``: they are read as well, not only config and tokenizer. Raises CheckpointError on every rank if
    one has others, or other ``formats``, and on a rank that lacks a file.
    """
    check_directory(directory)
    own = fingerprint(directory)
    digests = [own, weights_fingerprint(directory) if weights else own]
    # int64, which any group can send.
    words = [int.from_bytes(bytes.fromhex(digest), "big", signed=True) for digest in digests]
    words += formats.words()
    for rank, theirs in enumerate(_of_all_ranks(words, group, device)):
        for option, own_one, other in zip(("--weights", "--kv-dtype"), words[2:], theirs[2:], strict=True):
            if own_one != other:
                raise CheckpointError(f"rank {group.rank} and rank {rank} have different {option}")
        if theirs != words:
            files = "config or tokenizer" if theirs[0] != words[0] else "weights"
            raise CheckpointError(
                f"{directory}: rank {group.rank} and rank {rank} have different {files} files: all ranks "
                f"of a group must read the same checkpoint (here fingerprint {own})"
            )
    return own


def agree_on_blocks(num_blocks: int, group: TPGroup, device: torch.device) -> int:
    """KV blocks that every rank has room for. Called by all ranks."""
    return min(blocks for [blocks] in _of_all_ranks([num_blocks], group, device))


def agree_on_graphs(own: bool, group: TPGroup, device: torch.device) -> bool:
    """Whether every rank's attention can be in a CUDA graph. Called by all ranks."""
    found = all(theirs for [theirs] in _of_all_ranks([int(own)], group, device))
    if own and not found:
        logger.warning("decode steps run without CUDA graphs: another rank has no kernels for them")
    return found


def slowest(seconds: float, group: TPGroup, device: torch.device) -> float:
    """The largest of all ranks' durations. Called by all ranks."""
    return max(ns for [ns] in _of_all_ranks([round(seconds * 1e9)], group, device)) / 1e9


def agree_on_incarnation(group: TPGroup, device: torch.device) -> uuid.UUID:
    """A name for this life of the group, chosen by rank 0. Called by all ranks."""
    name = torch.frombuffer(bytearray(uuid.uuid4().bytes), dtype=torch.uint8).to(device)
    return uuid.UUID(bytes=bytes(group.broadcast(name).tolist()))


def agree_on_tiers(tiers: Sequence[Tier], group: TPGroup, device: torch.device) -> None:
    """Raises TierError on every rank if they have other tiers. Called by all ranks."""
    own = [len(tiers), sum(tier.frames for tier in tiers)]  # those of the host are agreed on before
    for rank, theirs in enumerate(_of_all_ranks(own, group, device)):
        if theirs != own:
            raise TierError(
                f"--kv-disk, --kv-disk-size: rank {group.rank} has {own[0]} KV tiers with {own[1]} frames, "
                f"rank {rank} has {theirs[0]} with {theirs[1]}: all ranks of a group need the same"
            )


def agree_on_contents(tier: Tier, group: TPGroup, device: torch.device) -> None:
    """Each rank forgets the frames that do not hold the same key on all of them. Called by all ranks."""
    if group.size == 1:
        return
    own = tier.contents()
    words = np.array(
        [(frame, *struct.unpack("<2q", key)) for frame, key in own.items()], dtype=np.int64
    ).reshape(-1, 3)
    counts = [count for [count] in _of_all_ranks([len(words)], group, device)]
    if not min(counts):
        tier.forget(own)
        return
    rows = group.gather_rows(torch.from_numpy(words).to(device), counts).cpu().numpy()
    held, ranks = np.unique(rows, axis=0, return_counts=True)
    common = set(held[ranks == group.size][:, 0].tolist())
    tier.forget([frame for frame in own if frame not in common])


def missing_by_rank(missing: list[bool], group: TPGroup, device: torch.device) -> Tensor:
    """``[ranks, slots]``, not 0 where a rank lacks KV of a slot that the step reads. Called by all ranks."""
    own = torch.tensor([missing], dtype=torch.int64)
    if group.size == 1:
        return own
    if device.type == "cuda":
        own = own.pin_memory().to(device, non_blocking=True)  # nothing waits for the forward
    return group.gather_rows(own, [1] * group.size)


def _of_all_ranks(words: list[int], group: TPGroup, device: torch.device) -> list[list[int]]:
    found: list[list[int]] = group.gather_rows(
        torch.tensor([words], device=device), [1] * group.size
    ).tolist()
    return found
