"""The decisions of one plan about KV tiers: what is fetched, what is spilled, and who waits for a fetch.

The plan builder makes it, once for each plan of a group that has tiers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from albireo.contract.tiers import Fetch, Spill
from scheduler_svc.core.directory import TierDirectory
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.prefix import Prefix
from scheduler_svc.core.request import Occupancy
from scheduler_svc.core.tier_times import TierTimes


class TierBuilder:
    """Copies blocks to the tiers that are worth it, before they are lost and else as the tiers can take it;
    has prefixes fetched; and decides from when on a slot computes whose prefix is on the way.

    A step that runs a slot before its fetch is done makes all others wait. So it runs in a step that is
    expected to begin late enough, or that runs nothing else.
    """

    def __init__(self, ledger: Ledger, times: TierTimes, now: float) -> None:
        self._ledger = ledger
        self._times = times
        self._now = now
        times.look(now)
        self.worthwhile = times.worthwhile(ledger.tiers.directories)  # the fastest first
        self._next_begin = times.next_begin(len(ledger.in_flight), now)
        self.spills: list[Spill] = []
        self.fetches: list[Fetch] = []

    def is_late(self, occupancy: Occupancy) -> bool:
        """Whether a chunk of a slot would have to wait for its fetch."""
        fetching = occupancy.fetching
        if fetching is None or occupancy.scheduled > occupancy.computed:  # a step before waits for it already
            return False
        return fetching.ready_at > self._next_begin

    def fetch(self, occupancy: Occupancy, prefix: Prefix, blocks: Sequence[int]) -> None:
        """Fills the blocks of a slot that was just admitted with that part of its prefix which tiers have."""
        found: dict[int, list[tuple[int, int, bytes]]] = defaultdict(list)
        for block, (position, tier, frame) in zip(blocks, prefix.frames, strict=True):
            found[tier].append((block, frame, occupancy.request.key(position)))
        fetches = [Fetch(occupancy.slot, tier, *zip(*parts, strict=True)) for tier, parts in found.items()]
        for fetch in fetches:
            self._ledger.fetch(fetch)
        self.fetches += fetches
        if occupancy.fetching is not None:
            occupancy.fetching.ready_at = self._times.fetch(fetches, self._now)

    def move_out(self, blocks: Sequence[int]) -> None:
        """Free blocks are about to be granted: what no tier has of them is lost otherwise."""
        for directory in self.worthwhile:
            self._spill(directory, [block for block in blocks if self._is_missing(block, directory)])

    def write_behind(self) -> None:
        """Blocks that a tier has not got yet are written as it can take them."""
        for directory in self.worthwhile:
            count = self._times.writes(directory.number, self._now)
            self._spill(directory, self._ledger.tiers.next_dirty(directory.number, count))

    def next_write(self) -> float | None:
        """When :meth:`write_behind` will have something to do; None if never, as things are."""
        numbers = (directory.number for directory in self.worthwhile)
        return min(
            (self._times.writes_at(tier) for tier in numbers if self._ledger.tiers.next_dirty(tier, 1)),
            default=None,
        )

    def _is_missing(self, block: int, directory: TierDirectory) -> bool:
        return self._ledger.tiers.is_missing(block, directory.number)

    def _spill(self, directory: TierDirectory, blocks: Sequence[int]) -> None:
        """As many of the blocks as there are frames for."""
        pool = self._ledger.pool
        keys = [key for block in blocks if (key := pool.key_of(block)) is not None]
        frames = directory.next_frames(len(keys))
        if not frames:
            return
        count = len(frames)
        spill = Spill(directory.number, tuple(blocks[:count]), tuple(frames), tuple(keys[:count]))
        self._ledger.tiers.spill(spill)
        self._times.spill(directory.number, count, self._now)
        self.spills.append(spill)
