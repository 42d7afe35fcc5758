"""The lanes of copies between KV blocks and tiers in a group's trace: one for each tier and direction."""

from __future__ import annotations

from collections.abc import Iterable

from albireo.v1 import control_pb2 as control


class CopyLanes:
    """Those of the tiers that the group's records name. Fetches before spills."""

    def __init__(self, records: Iterable[control.StepRecord]) -> None:
        found = {_key(transfer) for record in records for transfer in record.timing.transfers}
        self._numbers = {key: number for number, key in enumerate(sorted(found))}

    @property
    def names(self) -> list[str]:
        """In the order of their numbers, which count from 0."""
        return [f"spills to {tier}" if write else f"fetches from {tier}" for write, tier in self._numbers]

    def number(self, transfer: control.KvTransfer) -> int:
        """Of a transfer in one of the records."""
        return self._numbers[_key(transfer)]


def _key(transfer: control.KvTransfer) -> tuple[bool, str]:
    return transfer.write, transfer.tier
