"""The lanes of copies between KV blocks and tiers, and of what layers read of these, in a group's trace.

One for each tier and kind, and more where copies overlap: a lane shows one span at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from albireo.v1 import control_pb2 as control

NAMES = {"stream": "streamed from {}", "fetch": "fetches from {}", "spill": "spills to {}"}
"""Of lanes, by the kinds of copies, in this order."""


def kind_of(transfer: control.KvTransfer) -> str:
    """One of ``NAMES``."""
    if transfer.streamed:
        return "stream"
    return "spill" if transfer.write else "fetch"


class LanedCopy(NamedTuple):
    """A copy, and the step whose result names it."""

    lane: int
    transfer: control.KvTransfer
    record: control.StepRecord


class CopyLanes:
    """Of the copies that the group's records name."""

    def __init__(self, records: Iterable[control.StepRecord]) -> None:
        self.names: list[str] = []
        """Of the lanes, which are numbered from 0."""
        self.copies: list[LanedCopy] = []
        found = defaultdict[tuple[int, str], list[tuple[control.KvTransfer, control.StepRecord]]](list)
        kinds = list(NAMES)
        for record in records:
            for transfer in record.timing.transfers:
                found[kinds.index(kind_of(transfer)), transfer.tier].append((transfer, record))
        for (kind, tier), copies in sorted(found.items(), key=lambda item: item[0]):
            self._place(NAMES[kinds[kind]].format(tier), copies)

    def _place(self, name: str, copies: list[tuple[control.KvTransfer, control.StepRecord]]) -> None:
        """Each copy in the first of the lanes that is free when it begins."""
        first, ends = len(self.names), list[int]()
        for transfer, record in sorted(copies, key=lambda copy: copy[0].begin):
            free = next((n for n, end in enumerate(ends) if end <= transfer.begin), len(ends))
            if free == len(ends):
                ends.append(0)
                self.names.append(f"{name}, {free + 1}" if free else name)
            ends[free] = transfer.end
            self.copies.append(LanedCopy(first + free, transfer, record))
