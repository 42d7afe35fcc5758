"""Entries that begin and end an epoch, and the logs of a group within it. Both stores write them."""

from __future__ import annotations

from typing import NamedTuple

from albireo.store.interface import GroupOpening
from albireo.v1 import log_pb2 as log


class GroupEntries(NamedTuple):
    """What the opening, or the closing, of a group appends to its two logs and to the notices."""

    plan: bytes
    result: bytes
    notice: bytes


def epoch_opened(epoch: int) -> bytes:
    """The notice that opens an epoch."""
    return log.Notice(open=log.EpochOpen(epoch=epoch)).SerializeToString()


def group_opened(opening: GroupOpening) -> GroupEntries:
    """What opens a group's logs."""
    entry = log.GroupOpen(epoch=opening.epoch, group=opening.group, name=opening.name)
    return GroupEntries(
        log.PlanEntry(open=entry).SerializeToString(),
        log.ResultEntry(open=entry).SerializeToString(),
        log.Notice(group_open=entry).SerializeToString(),
    )


def group_closed(opening: GroupOpening, reason: str) -> GroupEntries:
    """What closes a group's logs."""
    entry = log.GroupClose(reason=reason)
    notice = log.GroupClosed(group=opening.group, name=opening.name, reason=reason)
    return GroupEntries(
        log.PlanEntry(close=entry).SerializeToString(),
        log.ResultEntry(close=entry).SerializeToString(),
        log.Notice(group_closed=notice).SerializeToString(),
    )
