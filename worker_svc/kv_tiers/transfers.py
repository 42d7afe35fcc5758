"""The transfers of one rank between its KV blocks and its KV tiers, as plans ask for them.

The input stage calls them. What is left to do for a step goes with it to the other stages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

import numpy as np

from albireo.contract.plan import Plan
from albireo.contract.tiers import Contents, Fetch, Offload, Spill
from worker_svc.buffers.arrays import Ints
from worker_svc.kv_tiers.copies import Copies, Copy
from worker_svc.kv_tiers.fetch_job import FetchJob
from worker_svc.kv_tiers.fetching import FetchLane
from worker_svc.kv_tiers.interface import Tier
from worker_svc.kv_tiers.layout import KvLayout
from worker_svc.kv_tiers.limits import PORTION_FRAMES
from worker_svc.kv_tiers.record import TransferRecord
from worker_svc.kv_tiers.spilling import Spilling
from worker_svc.kv_tiers.step_transfers import SlotFetches, StepTransfers
from worker_svc.kv_tiers.streamed_frames import SpanFrames
from worker_svc.kv_tiers.streaming import StreamReader

CLOSE_SECONDS = 2.0
"""For spills that are still to be written when the rank ends."""


class KvTransfers:
    """All tiers of a rank, and their threads."""

    def __init__(self, tiers: Sequence[Tier], copies: Copies, layout: KvLayout, num_blocks: int) -> None:
        self._tiers = tuple(tiers)
        self._num_blocks = num_blocks
        self.record = TransferRecord([tier.name for tier in tiers])
        self._spilling = Spilling(tiers, copies, layout, self.record)
        self._lanes = tuple(
            FetchLane(number, tier, copies, layout, self._spilling, self.record)
            for number, tier in enumerate(tiers)
        )
        self._streams = StreamReader(tiers, copies, layout, self._spilling, self.record)
        self._unread: dict[int, list[tuple[FetchLane, FetchJob]]] = {}  # by slot
        self._ended: list[Copy] = []  # of cancelled fetches, for the next step to wait for
        self._contents: deque[Contents] = deque()  # portions that no step has yet
        self._contents_due = False

    @property
    def failures(self) -> dict[tuple[str, str], int]:
        """Blocks that tiers did not take or did not bring so far, by tier and reason. Each counts where its
        fault is found; those that a fetch does not bring for the fault of another one do not."""
        return {
            (tier.name, kind): count for tier in self._tiers for kind, count in tier.faults.counts.items()
        }

    def reset(self) -> None:
        """An epoch begins: what steps fetch or stream is cancelled, what has not been copied is not spilled,
        and the next steps report what the tiers hold."""
        for jobs in self._unread.values():  # also those whose copies are launched, and not done
            for lane, job in jobs:
                self._ended += lane.cancel(job)
        self._unread.clear()
        for lane in self._lanes:  # those that steps have taken along, which wait for their copies
            lane.cancel_all()
        self._streams.cancel_all()
        self._spilling.drop_uncopied()
        pending = self._spilling.pending()
        self._contents.clear()
        for number, tier in enumerate(self._tiers):
            keys = tier.contents() | {frame: key for (t, frame), key in pending.items() if t == number}
            frames = iter(sorted(keys))
            while some := tuple(islice(frames, PORTION_FRAMES)):
                self._contents.append(Contents(number, some, tuple(keys[frame] for frame in some)))
        self._contents_due = True

    def begin(self, plan: Plan, incarnations: Ints, spans: Sequence[SpanFrames] = ()) -> StepTransfers | None:
        """Cancels fetches of slots that are released, begins those of the plan and what its spans read, and
        copies the blocks that change hands. None: the step has nothing to do with tiers.

        ``incarnations``: by slot, with the plan applied. Raises ValueError for what is not there.
        """
        if self._unread:
            for slot in plan.released:
                for lane, job in self._unread.pop(slot, ()):
                    self._ended += lane.cancel(job)
        step = StepTransfers(self._spilling)
        if plan.spills or plan.fetches or plan.offloads or self._spilling.copies_wait:
            self._begin_copies(plan, step)
        if self._unread:
            step.reads = self._reads(plan, incarnations)
        if spans:
            step.streams = self._streams.submit(spans)
        if self._ended:
            step.ended, self._ended = tuple(self._ended), []
        if self._contents_due:
            step.contents = (self._contents.popleft(),) if self._contents else ()
            self._contents_due = bool(self._contents)
            step.contents_end = not self._contents_due
        return None if step.empty else step

    def _begin_copies(self, plan: Plan, step: StepTransfers) -> None:
        self._check(*plan.spills, *plan.fetches, *plan.offloads)
        granted = {block for grant in plan.grants for block in grant.blocks}
        first = self._spilling.copying(granted)
        for spill in plan.spills:
            now, later = _split(spill, granted)
            moved = self._spilling.add(now)
            for job in moved:
                self._spilling.copy_now(job)
            first += moved
            step.spills += tuple(self._spilling.add(later))
        step.copied = tuple(first)
        for fetch in plan.fetches:
            lane = self._lanes[fetch.tier]
            self._unread.setdefault(fetch.slot, []).append((lane, lane.submit(fetch, after=first)))

    def _check(self, *moves: Spill | Fetch | Offload) -> None:
        for move in moves:
            if not 0 <= move.tier < len(self._tiers):
                raise ValueError(f"there is no KV tier {move.tier}")
            if not all(0 <= frame < self._tiers[move.tier].frames for frame in move.frames):
                raise ValueError(f"the KV tier {move.tier} has no such frame: {move.frames}")
            if not isinstance(move, Offload) and not all(0 <= b < self._num_blocks for b in move.blocks):
                raise ValueError(f"there is no such KV block: {move.blocks}")

    def _reads(self, plan: Plan, incarnations: Ints) -> tuple[SlotFetches, ...]:
        slots = [chunk.slot for chunk in plan.chunks if chunk.slot in self._unread]
        return tuple(
            SlotFetches(int(incarnations[slot]), tuple(self._unread.pop(slot)))
            for slot in dict.fromkeys(slots)
        )

    def close(self) -> None:
        """Writes what has been copied, for a few seconds. No call may follow."""
        for lane in self._lanes:
            lane.close(CLOSE_SECONDS)
        self._streams.close(CLOSE_SECONDS)
        self._spilling.close(CLOSE_SECONDS)
        for tier in self._tiers:
            tier.close()


def _split(spill: Spill, granted: set[int]) -> tuple[Spill, Spill]:
    """The blocks that change hands with the plan, and the others."""
    now = np.array([block in granted for block in spill.blocks], dtype=bool)
    return _part(spill, np.flatnonzero(now)), _part(spill, np.flatnonzero(~now))


def _part(spill: Spill, positions: Ints) -> Spill:
    return Spill(
        spill.tier,
        tuple(spill.blocks[i] for i in positions),
        tuple(spill.frames[i] for i in positions),
        tuple(spill.keys[i] for i in positions),
    )
