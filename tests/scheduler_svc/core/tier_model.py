"""The KV tiers of the worker model: copies that begin as early and end as late as the contract allows.

While a fetch is under way its blocks hold nothing that a row may read, and what it brings is written at the
last moment. A spilled block is read at the last moment, and must not have changed in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypedDict

from albireo.contract.plan import BLOCK_SIZE, GroupShape, Plan
from albireo.contract.tiers import Contents, Fetch, Frames, TierRead

Store = list[list[int | None]]
"""What each block holds, by offset."""
Frame = tuple[int, int]
"""A tier and the number of a frame in it."""


class Stored(NamedTuple):
    """What a frame holds."""

    key: bytes
    cells: tuple[int | None, ...]


def fitting(frames: Mapping[Frame, Stored], shape: GroupShape) -> dict[Frame, Stored]:
    """Those that the tiers of a shape have."""
    sizes = [tier.frames for tier in shape.tiers]
    return {
        (tier, number): stored
        for (tier, number), stored in frames.items()
        if tier < len(sizes) and number < sizes[tier]
    }


class Copy(NamedTuple):
    """One block that is on its way to a frame."""

    frame: Frame
    block: int
    key: bytes


class TierReports(TypedDict):
    """What a result says of tiers."""

    unfetched: tuple[int, ...]
    lost: tuple[Frames, ...]
    read: tuple[TierRead, ...]
    contents: tuple[Contents, ...]
    contents_end: bool


@dataclass
class Faults:
    """What is to go wrong next; counts go down as it does."""

    fetches: int = 0  # that do not come, though the frames are good
    spills: int = 0  # blocks that cannot be written
    silent: bool = False  # a frame that could not be read or written is not reported


@dataclass
class TierModel:
    """Frames of all tiers, and the copies that are under way."""

    shape: GroupShape
    store: Store
    frames: dict[Frame, Stored] = field(default_factory=dict)
    portion: int = 3  # frames in a result, while the contents are reported
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.meanings: dict[bytes, tuple[int | None, ...]] = {s.key: s.cells for s in self.frames.values()}
        self.fetching: dict[int, list[Fetch]] = {}  # by slot: not in the blocks yet
        self.failed: set[Frame] = set()  # that hold nothing since something went wrong
        self._reading: dict[int, int] = {}  # slot -> the step that reads its fetches first
        self._spilling: dict[int, list[Copy]] = {}  # by step, in order
        self._streaming: dict[int, set[Frame]] = {}  # by slot
        self._before: dict[int, list[int | None]] = {}  # what blocks held when the step began
        self._unreported = iter(sorted(self.frames.items()))
        self._reported = not self.shape.tiers
        self._lost: list[Frame] = []  # to be reported
        self._read: list[TierRead] = []

    # -- what the input stage does, perhaps many steps ahead -------------------------------------------

    def read(self, plan: Plan, tables: Mapping[int, list[int]]) -> None:
        """Copies of a plan begin. ``tables``: the blocks that it grants, by slot."""
        for slot in plan.released:
            if slot in self.fetching and slot not in self._reading:
                del self.fetching[slot]
            self._streaming.pop(slot, None)
        filled = {block for fetch in plan.fetches for block in fetch.blocks}
        self._begin_spills(plan, filled)
        for fetch in plan.fetches:
            self._begin_fetch(plan, fetch, tables[fetch.slot])
        for offload in plan.offloads:
            frames = {(offload.tier, number) for number in offload.frames}
            self._streaming.setdefault(offload.slot, set()).update(frames)
        taken = [block for fetch in plan.fetches for block in fetch.blocks]
        assert len(set(taken)) == len(taken), "two fetches into one block"
        for chunk in plan.chunks:
            if chunk.slot in self.fetching:
                self._reading.setdefault(chunk.slot, plan.step)

    def _begin_spills(self, plan: Plan, filled: set[int]) -> None:
        copies = [
            Copy((spill.tier, frame), block, key)
            for spill in plan.spills
            for block, frame, key in zip(spill.blocks, spill.frames, spill.keys, strict=True)
        ]
        frames = [copy.frame for copy in copies]
        assert len(set(frames)) == len(frames), "two blocks for one frame"
        wanted = self._wanted()
        for copy in copies:
            self._check_frame(copy.frame)
            assert copy.frame not in wanted, "a frame is overwritten that a fetch has still to read"
            self.frames.pop(copy.frame, None)
            self.failed.discard(copy.frame)
        for copy in copies:
            if copy.block in filled:  # the copies into it begin at once
                self._capture(copy)
        self._spilling[plan.step] = [copy for copy in copies if copy.block not in filled]

    def _begin_fetch(self, plan: Plan, fetch: Fetch, granted: list[int]) -> None:
        [admission] = [a for a in plan.admissions if a.slot == fetch.slot]
        cached = granted[: admission.num_cached // BLOCK_SIZE]
        assert fetch.blocks
        assert set(fetch.blocks) <= set(cached), "a fetch into blocks that are not the slot's cached ones"
        assert len(set(fetch.frames)) == len(fetch.blocks) == len(fetch.frames) == len(fetch.keys)
        for frame in fetch.frames:
            self._check_frame((fetch.tier, frame))
        for block in fetch.blocks:
            self.store[block] = [None] * BLOCK_SIZE
        self.fetching.setdefault(fetch.slot, []).append(fetch)

    def _check_frame(self, frame: Frame) -> None:
        tier, number = frame
        assert 0 <= number < self.shape.tiers[tier].frames

    def _wanted(self) -> set[Frame]:
        fetches = (fetch for fetches in self.fetching.values() for fetch in fetches)
        wanted = {(fetch.tier, frame) for fetch in fetches for frame in fetch.frames}
        return wanted.union(*self._streaming.values())

    # -- what happens while a step runs ----------------------------------------------------------------

    def begin(self, plan: Plan) -> None:
        """Blocks that change hands in this plan are copied before its rows run."""
        granted = {block for grant in plan.grants for block in grant.blocks}
        copies = self._spilling[plan.step]
        for copy in [copy for copy in copies if copy.block in granted]:
            self._capture(copy)
            copies.remove(copy)
        self._before = {copy.block: list(self.store[copy.block]) for copy in copies}

    def complete(self, slot: int, step: int) -> bool:
        """The step reads the slot: what was fetched, if anything, is in its blocks. False if a fetch has
        failed; its blocks hold nothing then."""
        if self._reading.get(slot) != step:
            return True
        good = True
        del self._reading[slot]
        for fetch in self.fetching.pop(slot):
            for copy in [c for c in self._spilling[step] if c.frame in self._frames_of(fetch)]:
                self._spilling[step].remove(copy)
                self._capture(copy)
            good &= self._bring(fetch)
        return good

    def streams(self, read: Iterable[tuple[Frame, bytes]]) -> bool:
        """A row reads frames. False if that fails; what they do not hold is to be reported."""
        missing = [frame for frame, key in read if (s := self.frames.get(frame)) is None or s.key != key]
        if not self.faults.silent:
            self._lost += missing
        if self.faults.fetches and not missing:
            self.faults.fetches -= 1
            return False
        return not missing

    def end(self, plan: Plan) -> None:
        """The step has run; so have the copies of what it spilled."""
        for copy in self._spilling.pop(plan.step):
            self._capture(copy)
        self._before = {}

    def _bring(self, fetch: Fetch) -> bool:
        missing = []
        for block, frame, key in zip(fetch.blocks, fetch.frames, fetch.keys, strict=True):
            stored = self.frames.get((fetch.tier, frame))
            if stored is None or stored.key != key:
                assert (fetch.tier, frame) in self.failed, "a frame that does not hold what is fetched"
                missing.append((fetch.tier, frame))
            else:
                self.store[block] = list(stored.cells)
        if not missing and not self.faults.fetches:
            seconds = self.shape.tiers[fetch.tier].read_block_seconds * len(fetch.blocks)
            self._read.append(TierRead(fetch.tier, len(fetch.blocks), seconds))
            return True
        if not missing:
            self.faults.fetches -= 1
        if not self.faults.silent:
            self._lost += missing
        for block in fetch.blocks:
            self.store[block] = [None] * BLOCK_SIZE
        return False

    def _frames_of(self, fetch: Fetch) -> list[Frame]:
        return [(fetch.tier, frame) for frame in fetch.frames]

    def _capture(self, copy: Copy) -> None:
        cells = self.store[copy.block]
        assert cells == self._before.get(copy.block, cells), "a block has changed while it was spilled"
        assert None not in cells, "a block is spilled that is not full"
        meant = self.meanings.setdefault(copy.key, tuple(cells))
        assert meant == tuple(cells), "a block is spilled under the key of another content"
        if not self.faults.spills:
            self.frames[copy.frame] = Stored(copy.key, meant)
            self.failed.discard(copy.frame)
            return
        self.faults.spills -= 1
        self.failed.add(copy.frame)
        if not self.faults.silent:
            self._lost.append(copy.frame)

    # -- what goes wrong by itself, and what is reported -----------------------------------------------

    def lose(self, frames: Iterable[Frame]) -> None:
        """What these frames hold is gone, which a fetch finds out."""
        for frame in frames:
            if self.frames.pop(frame, None):
                self.failed.add(frame)

    def reports(self, unfetched: tuple[int, ...], *, later: bool) -> TierReports:
        """What the result of the step says. ``later``: what is lost is reported by a result after this."""
        lost, self._lost = (self._lost, []) if not later else ([], self._lost)
        read, self._read = tuple(self._read), []
        portion = list(islice(self._unreported, self.portion))
        ends = not self._reported and len(portion) < self.portion
        self._reported |= ends
        tiers = range(len(self.shape.tiers))
        return TierReports(
            unfetched=unfetched,
            lost=tuple(
                Frames(tier, tuple(number for of, number in lost if of == tier))
                for tier in tiers
                if any(of == tier for of, _ in lost)
            ),
            read=read,
            contents=tuple(
                Contents(tier, numbers, keys)
                for tier in tiers
                if (found := [(number, s.key) for (of, number), s in portion if of == tier])
                for numbers, keys in [tuple(zip(*found, strict=True))]
            ),
            contents_end=ends,
        )
