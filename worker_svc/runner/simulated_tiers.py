"""The tiers of KV of a simulated device: what they hold is keys of blocks, and copies take time.

Simulated ranks and simulated groups call it where a runner calls the tiers of a device. Left out is that
copies of one direction slow down those of the other, and that blocks that change hands are copied first.
Times are nanoseconds of the Unix clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from albireo.contract.plan import Plan
from albireo.contract.tiers import Contents, Fetch, Frames, Offload, Spill, TierRead
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
from worker_svc.runner.simulated_layers import NO_READING, LayerTimes, Reading, run_layers
from worker_svc.runner.simulated_streams import SimulatedReads, SimulatedStreams
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
    lost: tuple[Frames, ...] = ()  # that its plan's spills were to fill, or that its offloads lack
    contents: tuple[Contents, ...] = ()
    contents_end: bool = False
    reads: SimulatedReads | None = None  # of its spans


class SimulatedTiers:
    """Those of one rank. ``begin`` and ``reset`` belong to the input stage, ``run`` to the compute stage."""

    def __init__(self, tiers: DescribedTiers) -> None:
        self._num_layers = tiers.layers
        self._part_bytes = tiers.part_bytes
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
        self._streams = SimulatedStreams(tiers, self._reads)
        self._read_until = 0  # the compute stage's: when the reading for the last step's spans has ended
        self._incarnations: dict[int, int] = {}  # by slot; of those that are free, the last
        self._fetches: dict[int, list[SimulatedFetch]] = {}  # by slot: those that no step has waited for
        self._unreported: list[Contents] = []  # of what was there when the epoch began; the last one is next
        self._reported = not tiers.shapes

    def reset(self) -> None:
        """A new epoch begins: fetches are given up, and its first results report the contents."""
        self._fetches.clear()
        self._streams.reset()
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
        self._streams.release(plan.released)
        lost = self._spill(plan.spills, now) if plan.spills else ()
        for admission in plan.admissions:
            self._incarnations[admission.slot] = admission.incarnation
        if plan.fetches:
            self._fetch(plan.fetches, now)
        if plan.offloads:
            lost += self._offload(plan.offloads)
        waited: list[SimulatedFetch] = []
        if self._fetches:
            for chunk in plan.chunks:
                waited += self._fetches.pop(chunk.slot, ())
        contents = (self._unreported.pop(),) if self._unreported else ()
        contents_end = not self._reported and not self._unreported
        self._reported |= contents_end
        reads = self._streams.begin(plan.spans, now) if plan.spans else None
        return StepTransfers(tuple(waited), lost, contents, contents_end, reads)

    def run(
        self, step: StepTransfers, begin: int, forward: int, *, whole: bool = True
    ) -> tuple[int, TierReport | None]:
        """When a forward ends that begins at ``begin`` and computes for ``forward`` nanoseconds, each layer
        as soon as its KV is there, and what its result reports. None: nothing. ``whole``: it has rows that
        run all layers."""
        times, failed = LayerTimes(begin + forward, 0, 0, 0), set[int]()
        if step.fetches or step.reads is not None:
            deadline = begin + DEADLINE_NS
            failed = {f.incarnation for f in step.fetches if f.missing or f.copy.end > deadline}
            times = self._run_layers(step, begin, forward, deadline, whole=whole)
        transfers = [copy for lane in (*self._reads, *self._writes) for copy in lane.ended(times.end)]
        if step.reads is not None:
            failed.update(step.reads.failed)
            transfers += step.reads.between(max(step.reads.begin, self._read_until), times.read)
            self._read_until = times.read
        if not transfers and step == NOTHING:
            return times.end, None
        lost = tuple(Frames(f.fetch.tier, f.missing) for f in step.fetches if f.missing)
        return times.end, TierReport(
            unfetched=tuple(sorted(failed)),
            lost=step.lost + lost,
            read=tuple(_read(f) for f in step.fetches if f.incarnation not in failed),
            contents=step.contents,
            contents_end=step.contents_end,
            transfers=tuple(transfers),
            kv_wait_ns=times.waited + times.stream_waited,
            stream_wait_ns=times.stream_waited,
        )

    def _run_layers(
        self, step: StepTransfers, begin: int, forward: int, deadline: int, *, whole: bool
    ) -> LayerTimes:
        there, reading, reads = [begin] * self._num_layers, NO_READING, step.reads
        if step.fetches:
            ready = zip(*(f.there(self._num_layers, self._part_bytes) for f in step.fetches), strict=True)
            there = [min(deadline, max(at)) for at in ready]
        if reads is not None:
            layers = range(self._num_layers) if whole else reads.layers  # those without rows take no time
            there = there[: len(layers)]
            seconds = [reads.layers.get(layer, 0) for layer in layers]
            reading = Reading(max(reads.begin, self._read_until), seconds, reads.ahead)
        return run_layers(begin, forward, there, reading)

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

    def _offload(self, offloads: Iterable[Offload]) -> tuple[Frames, ...]:
        """Returns the frames that do not hold what they should."""
        found = [self._streams.add(o, self._incarnations[o.slot], self._contents[o.tier]) for o in offloads]
        lost = tuple([frames for frames in found if frames is not None])
        for tier, frames in lost:
            for frame in frames:
                self._contents[tier].pop(frame, None)
        return lost

    def _fetch(self, fetches: Iterable[Fetch], now: int) -> None:
        for fetch in fetches:
            held = self._contents[fetch.tier]
            wanted = zip(fetch.frames, fetch.keys, strict=True)
            missing = tuple([frame for frame, key in wanted if held.get(frame) != key])
            for frame in missing:
                held.pop(frame, None)
            copy = self._reads[fetch.tier].take(len(fetch.blocks), now)
            found = SimulatedFetch(self._incarnations[fetch.slot], fetch, copy, missing)
            self._fetches.setdefault(fetch.slot, []).append(found)


NOTHING = StepTransfers()


def _read(found: SimulatedFetch) -> TierRead:
    copy = found.copy
    return TierRead(found.fetch.tier, len(found.fetch.blocks), (copy.end - copy.begin) / 1e9)
