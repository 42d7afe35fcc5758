"""The directory of all prefix caches: which groups have which block of a prefix.

The block pools of all groups keep it; the placement reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from albireo.contract.plan import BLOCK_SIZE

if TYPE_CHECKING:
    from scheduler_svc.core.request import Request


class PrefixDirectory:
    """By the key of a full block, a set of groups as bits: so one walk along a prefix finds how far each
    group has it, whatever their number."""

    def __init__(self) -> None:
        self._groups: dict[bytes, int] = {}

    @property
    def groups(self) -> Mapping[bytes, int]:
        """The bits by key; none is 0."""
        return self._groups

    def add(self, key: bytes, bit: int) -> None:
        """A group has cached a block."""
        self._groups[key] = self._groups.get(key, 0) | bit

    def discard(self, key: bytes, bit: int) -> None:
        """A group that had cached a block has not any more."""
        left = self._groups[key] & ~bit
        if left:
            self._groups[key] = left
        else:
            del self._groups[key]

    def cached_blocks(self, request: Request) -> dict[int, int]:
        """How many blocks from the first token on each group has cached, by its bit; groups with none are
        left out. The block of the last token is not among them, as it is computed in any case."""
        found: dict[int, int] = {}
        if not self._groups:
            return found
        among, index = -1, 0  # groups that have all blocks before ``index``
        for index in range((len(request.tokens) - 1) // BLOCK_SIZE):
            have = self._groups.get(request.key(index), 0) & among
            if index and have != among:
                found |= dict.fromkeys(_bits(among & ~have), index)
            among = have
            if not among:
                return found
        if among > 0:
            found |= dict.fromkeys(_bits(among), index + 1)
        return found


def _bits(groups: int) -> list[int]:
    found = []
    while groups:
        bit = groups & -groups
        found.append(bit)
        groups ^= bit
    return found
