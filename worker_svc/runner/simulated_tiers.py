"""The tiers of KV of a simulated device: what they hold is keys of blocks, and copies take time.

Simulated ranks and simulated groups call it where a runner calls the tiers of a device. Left out is that
copies of one direction slow down those of the other, and that blocks that change hands are copied first.
Times are nanoseconds of the Unix clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from albireo.contract.plan import Plan
from albireo.contract.tiers import Contents, Fetch, Frames, Spill, TierRead
from albireo.v1 import control_pb2 as control
from worker_svc.cost.tiers import DescribedTiers
from worker_svc.kv_tiers.limits import (
    MOST_SECONDS,
    PORTION,
    PORTION_FRAMES,
    layer_ranges,
    ring_buffers,
)
from worker_svc.runner.simulated_lane import SimulatedLane
from worker_svc.runner.tier_report import TierReport

DEADLINE_NS = round(MOST_SECONDS * 1e9)
"""A fetch that has not ended so long after the begin of the step that waits for it has failed. Until then a
simulated tier always brings something."""


@dataclass(frozen=True, slots=True)
class SimulatedFetch:
    """Blocks of a slot on their way from a tier."""

    incarnation: int
    fetch: Fetch
    copy: control.KvTransfer
    missing: tuple[int, ...]  # frames that do not hold what they should

    def there(self, layers: int, part_bytes: int) -> list[int]:
        """When the part of each layer is in the blocks: they come piece by piece. ``part_bytes``: of one
        layer of a block."""
        begin, duration = self.copy.begin, self.copy.end - self.copy.begin
        pieces = layer_ranges(layers, part_bytes, len(self.fetch.blocks))
        return [begin + duration * piece.stop // layers for piece in pieces for _ in piece]


@dataclass(frozen=True, slots=True)
class StepTransfers:
    """What a step has to do with the tiers."""

    fetches: tuple[SimulatedFetch, ...] = ()  # that it waits for
    lost: tuple[Frames, ...] = ()  # that its plan's spills were to fill
    contents: tuple[Contents, ...] = ()
    contents_end: bool = False


class SimulatedTiers:
    """Those of one rank. ``begin`` and ``reset`` belong to the input stage, ``run`` to the compute stage."""

    def __init__(self, tiers: DescribedTiers) -> None:
        self._layers = tiers.layers
        self._part_bytes = max(1, tiers.block_bytes // tiers.layers)
        self._ring = PORTION * ring_buffers(max(1, tiers.block_bytes))  # blocks
        self._contents: list[dict[int, bytes]] = [{} for _ in tiers.shapes]  # key by frame
        self._reads = [
            SimulatedLane(tier.name, tier.read_block_seconds, tiers.block_bytes, write=False)
            for tier in tiers.shapes
        ]
        self._writes = [
            SimulatedLane(tier.name, tier.write_block_seconds, tiers.block_bytes, write=True)
            for tier in tiers.shapes
        ]
        self._fetches: dict[int, list[SimulatedFetch]] = {}  # by slot: those that no step has waited for
        self._unreported: list[Contents] = []  # of what was there when the epoch began; the last one is next
        self._reported = not tiers.shapes

    def reset(self) -> None:
        """A new epoch begins: fetches are given up, and its first results report the contents."""
        self._fetches.clear()
        self._reported = not self._contents
        self._unreported = [
            Contents(tier, frames, tuple([held[frame] for frame in frames]))
            for tier, held in enumerate(self._contents)
            for first in range(0, len(held), PORTION_FRAMES)
            for frames in [tuple(sorted(held)[first : first + PORTION_FRAMES])]
        ]

    def begin(self, plan: Plan, now: int) -> StepTransfers:
        """Begins the copies of a plan that was read ``now``. What is cancelled has its turn all the same."""
        for slot in plan.released:
            self._fetches.pop(slot, None)
        lost = self._spill(plan.spills, now) if plan.spills else ()
        if plan.fetches:
            self._fetch(plan, now)
        waited: list[SimulatedFetch] = []
        if self._fetches:
            for chunk in plan.chunks:
                waited += self._fetches.pop(chunk.slot, ())
        contents = (self._unreported.pop(),) if self._unreported else ()
        contents_end = not self._reported and not self._unreported
        self._reported |= contents_end
        return StepTransfers(tuple(waited), lost, contents, contents_end)

    def run(self, step: StepTransfers, begin: int, forward: int) -> tuple[int, TierReport | None]:
        """When a forward ends that begins at ``begin`` and computes for ``forward`` nanoseconds, each layer
        as soon as its KV is there, and what its result reports. None: nothing."""
        end, waited, failed = begin + forward, 0, set[int]()
        if step.fetches:
            deadline = begin + DEADLINE_NS
            failed = {f.incarnation for f in step.fetches if f.missing or f.copy.end > deadline}
            layers = zip(*(f.there(self._layers, self._part_bytes) for f in step.fetches), strict=True)
            end, waited = pipeline(begin, forward, [min(deadline, max(at)) for at in layers])
        transfers = [copy for lane in (*self._reads, *self._writes) for copy in lane.ended(end)]
        if not transfers and step == NOTHING:
            return end, None
        lost = tuple(Frames(f.fetch.tier, f.missing) for f in step.fetches if f.missing)
        return end, TierReport(
            unfetched=tuple(sorted(failed)),
            lost=step.lost + lost,
            read=tuple(_read(f) for f in step.fetches if f.incarnation not in failed),
            contents=step.contents,
            contents_end=step.contents_end,
            transfers=tuple(transfers),
            kv_wait_ns=waited,
        )

    def _spill(self, spills: Iterable[Spill], now: int) -> tuple[Frames, ...]:
        """Returns the frames of what found no room to wait: the tiers share the buffers."""
        lost = []
        for tier, _, frames, keys in spills:
            held, lane = self._contents[tier], self._writes[tier]
            room = max(0, int(self._ring - sum(lane.waiting(now) for lane in self._writes)))
            held.update(zip(frames[:room], keys, strict=False))
            if frames[room:]:
                lost.append(Frames(tier, frames[room:]))
                for frame in frames[room:]:
                    held.pop(frame, None)
            if room:
                lane.take(min(room, len(frames)), now)
        return tuple(lost)

    def _fetch(self, plan: Plan, now: int) -> None:
        incarnations = {admission.slot: admission.incarnation for admission in plan.admissions}
        for fetch in plan.fetches:
            held = self._contents[fetch.tier]
            wanted = zip(fetch.frames, fetch.keys, strict=True)
            missing = tuple([frame for frame, key in wanted if held.get(frame) != key])
            for frame in missing:
                held.pop(frame, None)
            copy = self._reads[fetch.tier].take(len(fetch.blocks), now)
            found = SimulatedFetch(incarnations[fetch.slot], fetch, copy, missing)
            self._fetches.setdefault(fetch.slot, []).append(found)


NOTHING = StepTransfers()


def pipeline(begin: int, forward: int, there: Sequence[int]) -> tuple[int, int]:
    """When the layers have run, each as long as the others and not before its KV is there; and how long they
    waited for it."""
    end, waited = begin, 0
    for layer, at in enumerate(there):
        waited += max(0, at - end)
        end = max(at, end) + forward * (layer + 1) // len(there) - forward * layer // len(there)
    return end, waited


def _read(found: SimulatedFetch) -> TierRead:
    copy = found.copy
    return TierRead(found.fetch.tier, len(found.fetch.blocks), (copy.end - copy.begin) / 1e9)
