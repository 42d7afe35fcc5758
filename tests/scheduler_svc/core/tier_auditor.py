"""Checks what plans say of KV tiers against what is known outside the core."""

from __future__ import annotations

from dataclasses import dataclass

from albireo.contract.plan import Plan, StepResult
from albireo.contract.tiers import TierShape

from .tier_model import Frame


@dataclass
class Reading:
    """The fetches of one occupancy."""

    begun: int  # by the plan of this step
    frames: set[Frame]
    blocks: set[int]
    first: int = 0  # the first step that reads the slot; 0: none so far


class TierAuditor:
    """Follows the plans as they are published: which frames and blocks are in use until which step."""

    def __init__(self, tiers: tuple[TierShape, ...]) -> None:
        """``tiers``: those that are used."""
        self._tiers = tiers
        self.known = not tiers
        """Whether the contents of the tiers are known, so that requests may run."""
        self.unfetched: set[int] = set()  # incarnations
        self._by_slot: dict[int, Reading] = {}
        self._streamed: dict[int, set[Frame]] = {}  # by slot
        self._last_span: dict[int, int] = {}  # slot -> the last step that reads its frames
        self._over: dict[Frame, int] = {}  # the step that reads a frame
        self._filled: dict[int, int] = {}  # block -> the step that reads what was fetched into it
        self._first: dict[str, int] = {}  # request -> the step that reads its fetches

    def settled(self, result: StepResult) -> None:
        self.known |= result.contents_end
        self.unfetched |= set(result.unfetched)

    def audit(self, plan: Plan, settled: int) -> None:
        """Spills and fetches of a plan, before its grants are looked at."""
        for slot in plan.released:
            self._end(self._by_slot.pop(slot, None))
            for frame in self._streamed.pop(slot, ()):
                self._over[frame] = max(self._over.get(frame, 0), self._last_span.get(slot, 0))
        assert self._tiers or not (plan.spills or plan.fetches)
        unread = {frame for reading in self._by_slot.values() for frame in reading.frames}
        unread = unread.union(*self._streamed.values())
        for spill in plan.spills:
            for number in spill.frames:
                frame = spill.tier, number
                assert frame not in unread, "a frame is overwritten before it was read"
                assert self._over.get(frame, 0) <= settled, "a frame is overwritten before its fetch settled"
        for offload in plan.offloads:
            frames = {(offload.tier, number) for number in offload.frames}
            self._streamed.setdefault(offload.slot, set()).update(frames)
        self._last_span |= {span.slot: plan.step for span in plan.spans}
        names = {a.slot: a.request_id for a in plan.admissions}
        for name in names.values():
            self._first.pop(name, None)
        for fetch in plan.fetches:
            reading = self._by_slot.setdefault(fetch.slot, Reading(plan.step, set(), set()))
            reading.frames |= {(fetch.tier, number) for number in fetch.frames}
            reading.blocks |= set(fetch.blocks)
            self._first[names[fetch.slot]] = plan.step + 10**9  # as long as nothing reads it

    def fetched(self, plan: Plan, slot: int) -> set[int]:
        """Blocks that this plan fills for a slot."""
        return {block for fetch in plan.fetches if fetch.slot == slot for block in fetch.blocks}

    def fill(self, block: int) -> None:
        """A free block has a new owner."""
        self._filled.pop(block, None)

    def note_chunks(self, plan: Plan, names: dict[int, str]) -> None:
        """``names``: of the requests by slot."""
        for chunk in plan.chunks:
            reading = self._by_slot.get(chunk.slot)
            if reading is not None and not reading.first:
                reading.first = plan.step
                self._first[names[chunk.slot]] = plan.step
                self._end(reading)
                reading.frames = set()

    def is_verified(self, request: str, settled: int) -> bool:
        """Whether all that a request has fetched is known to have come."""
        return self._first.get(request, 0) <= settled

    def check_share(self, block: int, writer: str | None, settled: int) -> None:
        """A block gets one more owner; ``writer`` has computed it."""
        unread = [reading for reading in self._by_slot.values() if not reading.first]
        assert not any(block in reading.blocks for reading in unread), (
            "a block is shared that is still fetched"
        )
        assert self._filled.get(block, 0) <= settled, "a block is shared whose fetch has not settled"
        assert writer is None or self.is_verified(writer, settled), "its writer's fetch has not settled"

    def _end(self, reading: Reading | None) -> None:
        """The step is known after which the frames of some fetches are free."""
        if reading is None:
            return
        until = reading.first or reading.begun
        self._over |= {frame: max(until, self._over.get(frame, 0)) for frame in reading.frames}
        self._filled |= dict.fromkeys(reading.blocks, until)
