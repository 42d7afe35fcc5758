"""What groups announce: checks it, gives groups their names, and finds what they have in common.

The fleet calls it. Anything that can write into Redis can announce a group.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count

from albireo.contract import codec, tier_codec
from albireo.contract.plan import GroupShape
from albireo.v1 import log_pb2 as log

MAX_RANKS = 1024
MAX_BLOCKS = 1 << 28
MAX_SLOTS = 65536
MAX_MODEL_LEN = 1 << 30
MAX_LAYERS = 4096
MAX_TIERS = 4
MAX_FRAMES = 1 << 24
_NAME = re.compile(r"[A-Za-z0-9._-]{0,32}")
_TIER_NAME = re.compile(r"[a-z0-9._-]{1,32}")


class BadAnnouncement(ValueError):
    """A group cannot be led as it announces itself."""


def group_info(incarnation: str, data: bytes) -> log.GroupInfo:
    """The announcement of a group. Raises BadAnnouncement."""
    try:
        info = codec.group_from_bytes(data)
    except ValueError as error:
        raise BadAnnouncement(f"its announcement cannot be read: {error}") from error
    if info.incarnation != incarnation:
        raise BadAnnouncement(f"it announces another incarnation, {info.incarnation!r}")
    if not _NAME.fullmatch(info.name):
        raise BadAnnouncement(f"name: {info.name!r}; at most 32 characters of [A-Za-z0-9._-]")
    for field, largest in (
        ("num_blocks", MAX_BLOCKS),
        ("max_seqs", MAX_SLOTS),
        ("max_model_len", MAX_MODEL_LEN),
        ("tp", MAX_RANKS),
        ("vocab_size", 1 << 31),
    ):
        if not 1 <= (found := getattr(info, field)) <= largest:
            raise BadAnnouncement(f"{field}: {found}; 1 to {largest}")
    if info.num_layers > MAX_LAYERS:
        raise BadAnnouncement(f"num_layers: {info.num_layers}; at most {MAX_LAYERS}")
    for field in ("step_seconds", "prefill_token_seconds"):
        if not 0 <= (seconds := getattr(info, field)) < 3600:
            raise BadAnnouncement(f"{field}: {seconds}; 0 to 3600")
    _check_tiers(info.tiers)
    return info


def shape(info: log.GroupInfo) -> GroupShape:
    """What the group can hold."""
    return GroupShape(
        info.num_blocks,
        info.max_seqs,
        info.max_model_len,
        tier_codec.shapes_from_proto(info.tiers),
        info.num_layers,
    )


def free_name(wanted: str, taken: set[str]) -> str:
    """What a group is called: as its operator wants, where no other has that name, else the lowest free
    ``g<n>``."""
    if wanted and wanted not in taken:
        return wanted
    return next(name for number in count() if (name := f"g{number}") not in taken)


def _check_tiers(tiers: Sequence[log.Tier]) -> None:
    if len(tiers) > MAX_TIERS:
        raise BadAnnouncement(f"tiers: {len(tiers)}; at most {MAX_TIERS}")
    names = [tier.name for tier in tiers]
    if len(set(names)) != len(names):
        raise BadAnnouncement(f"tiers: the names {names} are not all different")
    for tier in tiers:
        if not _TIER_NAME.fullmatch(tier.name):
            raise BadAnnouncement(f"tiers: the name {tier.name!r}; 1 to 32 characters of [a-z0-9._-]")
        if not 1 <= tier.frames <= MAX_FRAMES:
            raise BadAnnouncement(f"tiers: {tier.name}: frames: {tier.frames}; 1 to {MAX_FRAMES}")
        for field in ("read_block_seconds", "write_block_seconds"):
            if not 0 <= (seconds := getattr(tier, field)) < 3600:
                raise BadAnnouncement(f"tiers: {tier.name}: {field}: {seconds}; 0 to 3600")


def served_model(infos: Sequence[log.GroupInfo]) -> log.ServedModel:
    """What groups of one fingerprint have in common, as the last of them has it; at least one."""
    last = infos[-1]
    return log.ServedModel(
        architecture=last.architecture,
        dtype=last.dtype,
        vocab_size=last.vocab_size,
        max_model_len=max(info.max_model_len for info in infos),
        eos_token_ids=last.eos_token_ids,
        fingerprint=last.fingerprint,
        simulated=any(info.device == "sim" for info in infos),
        tp=last.tp,
        device=last.device,
    )
