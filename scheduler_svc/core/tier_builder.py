"""The decisions of one plan about KV tiers: what is fetched, what is spilled, and who waits for a fetch.

The plan builder makes it, once for each plan of a group that has tiers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

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
        self._next_begin = times.next_begin(ledger.in_flight, now)
        self._moved: list[Spill] = []
        self._written: list[Spill] = []  # behind the steps
        self._kept: dict[int, set[int]] = defaultdict(set)  # frames that the plan does not write, by tier
        self.fetches: list[Fetch] = []

    @property
    def spills(self) -> tuple[Spill, ...]:
        """Those of the plan: one of each tier for what the plan grants anew, and one for what is written
        behind."""
        moved = [[spill for spill in self._moved if spill.tier == tier.number] for tier in self.worthwhile]
        return (*(_joined(spills) for spills in moved if spills), *self._written)

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
        """Free blocks are about to be granted: what a tier has not got of them, it would never get. Where it
        cannot take all, it gets those that would have gone last."""
        for directory in self.worthwhile:
            missing = [block for block in blocks if self._is_missing(block, directory)]
            room = self._times.room(directory.number, self._now)
            frames = self._next_frames(directory, min(len(missing), room))
            self._moved += self._spill(directory, missing[len(missing) - len(frames) :], frames)

    def write_behind(self, free: int) -> bool:
        """Blocks that a tier has not got yet are written as it can take them, the later ones of a prefix
        first: of what it has, they are the first to go. Whether there are any.

        ``free``: of the free blocks, how many can be withheld until they have been copied."""
        pool = self._ledger.pool
        for directory in self.worthwhile:
            count = self._times.writes(directory.number, self._now)
            blocks = []
            for block in self._ledger.tiers.next_dirty(directory.number, count):
                owned = pool.owners(block) > 0
                if owned or free > 0:
                    blocks.append(block)
                    free -= not owned
            frames = self._next_frames(directory, len(blocks))
            self._written += self._spill(directory, blocks[: len(frames)][::-1], frames)
        return bool(self._written)

    def keep(self, directory: TierDirectory, keys: Iterable[bytes]) -> None:
        """What stays in a tier in this plan, as far as it is there."""
        frames = (directory.find(key) for key in keys)
        self._kept[directory.number].update(frame for frame in frames if frame is not None)

    def can_copy(self, directory: TierDirectory) -> bool:
        """Whether :meth:`copy` would write a block to a tier."""
        waits = self._ledger.in_flight and not self._times.room(directory.number, self._now)
        return not waits and bool(self._next_frames(directory, 1))

    def copy(self, directory: TierDirectory, missing: Mapping[bytes, int]) -> bool:
        """Blocks are written to a tier before others, by their keys, as it can take them. Whether there are
        any."""
        room = self._times.room(directory.number, self._now) or (not self._ledger.in_flight)
        frames = self._next_frames(directory, min(len(missing), room))
        blocks = dict(islice(missing.items(), len(frames)))
        self._written += self._spill(directory, list(blocks.values()), frames, list(blocks))
        return bool(frames)

    def next_write(self) -> float | None:
        """When :meth:`write_behind` will have something to do if it has nothing to do now; None if never, as
        things are."""
        numbers = [directory.number for directory in self.worthwhile]
        dirty = [number for number in numbers if self._ledger.tiers.next_dirty(number, 1)]
        times = [then for number in dirty if (then := self._times.writes_at(number)) > self._now]
        return min(times, default=None)

    def _next_frames(self, directory: TierDirectory, count: int) -> list[int]:
        return directory.next_frames(count, self._kept[directory.number])

    def _is_missing(self, block: int, directory: TierDirectory) -> bool:
        return self._ledger.tiers.is_missing(block, directory.number)

    def _spill(
        self,
        directory: TierDirectory,
        blocks: Sequence[int],
        frames: Sequence[int],
        keys: Sequence[bytes] = (),
    ) -> Iterator[Spill]:
        """``keys``: those of the blocks, unless they are cached under them."""
        if not blocks:
            return
        keys = keys or [key for block in blocks if (key := self._ledger.pool.key_of(block)) is not None]
        spill = Spill(directory.number, tuple(blocks), tuple(frames), tuple(keys))
        self._ledger.spill(spill)
        self._times.spill(directory.number, len(blocks), self._now)
        yield spill


def _joined(spills: Sequence[Spill]) -> Spill:
    """Those of one tier as one."""
    return Spill(
        spills[0].tier,
        tuple(chain.from_iterable(spill.blocks for spill in spills)),
        tuple(chain.from_iterable(spill.frames for spill in spills)),
        tuple(chain.from_iterable(spill.keys for spill in spills)),
    )
