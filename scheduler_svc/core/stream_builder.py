"""The decisions of one plan about streamed slots: what they have in frames, and which layers they run.

The plan builder makes it, once for each plan of a group that streams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from albireo.contract.plan import BLOCK_SIZE, Grant, blocks_for
from albireo.contract.tiers import Offload, Span
from scheduler_svc.core.block_supply import BlockSupply
from scheduler_svc.core.directory import TierDirectory
from scheduler_svc.core.fetching import Source
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.limits import Limits
from scheduler_svc.core.plan_draft import PlanDraft
from scheduler_svc.core.request import Occupancy, Phase
from scheduler_svc.core.stream_pace import StreamPace
from scheduler_svc.core.stream_rules import StreamRules
from scheduler_svc.core.tier_builder import TierBuilder

FEWEST_BLOCKS = 2
"""That a streamed slot keeps where others need them."""


class StreamBuilder:
    """Keeps each streamed slot at its few blocks: its oldest full ones are copied to a tier, and leave it for
    their frames when it needs others. So it goes from one row, or chunk, to the next.

    A slot that prefills a prompt which is too long is treated alike: until the first of its blocks leave it,
    it runs chunks.
    """

    def __init__(
        self,
        ledger: Ledger,
        limits: Limits,
        rules: StreamRules,
        pace: StreamPace,
        tiers: TierBuilder,
        draft: PlanDraft,
    ) -> None:
        self._ledger = ledger
        self._limits = limits
        self._rules = rules
        self._pace = pace
        self._tiers = tiers
        self._draft = draft
        self._offloading: list[Offload] = []  # decided and not booked
        self._ready: list[tuple[Occupancy, int]] = []  # slots that can run, with the tokens of their rows
        self._copying: list[tuple[Occupancy, int]] = []  # with how many of its next blocks are to be copied
        self._claimed: Counter[int] = Counter()  # frames for these, by tier

    @property
    def decided(self) -> bool:
        """Whether there is something for the plan."""
        return bool(self._ready or self._offloading)

    def serve(self, occupancy: Occupancy, supply: BlockSupply) -> None:
        """Blocks and rows for a slot that is streamed, or is to be."""
        streaming = occupancy.streaming
        under_way = streaming is not None and streaming.under_way
        if occupancy.at_length_end and not under_way:
            supply.release(occupancy)
            return
        self._claim_frames(occupancy)
        if streaming is not None and under_way:
            self._run(occupancy, streaming.count)
            return
        count = min(self._limits.prefill_chunk, max(1, occupancy.prefill - occupancy.scheduled))
        count = self._fit(occupancy, min(count, self._draft.budget), supply)
        if count <= 0:
            return
        missing = blocks_for(occupancy.scheduled + count) - occupancy.streamed - len(occupancy.blocks)
        if missing > 0:
            if not supply.obtain(occupancy, missing):
                return
            self._draft.granting.append((occupancy.slot, missing))
        self._run(occupancy, count)

    def relieve(self, supply: BlockSupply) -> None:
        """A row that decodes needs a block: if none is free, a streamed slot gives one of its own."""
        if supply.free < 1:
            for occupancy in self._givers(supply):
                if self._offload(occupancy, 1, supply):
                    return

    def shrink(self, occupancy: Occupancy, supply: BlockSupply) -> bool:
        """A row that decodes finds no block: it is streamed if it is too long, or if nothing else runs but
        streamed slots that have none to give. False if it is not yet."""
        others = self._ledger.num_running - len(self._ledger.phases[Phase.STREAMED])
        alone = others == 1 and not self._givers(supply)
        if not supply.stuck or not (alone or self._rules.is_long(occupancy.scheduled + 1)):
            return False
        wanted = max(1, len(occupancy.blocks) + 1 - self._rules.resident)
        if self._offload(occupancy, wanted, supply):
            return True
        self._claim_frames(occupancy)
        return False

    def _givers(self, supply: BlockSupply) -> list[Occupancy]:
        """Streamed slots that have more blocks than they must, those with the most first."""
        streamed = self._ledger.phases[Phase.STREAMED].values()
        found = [o for o in streamed if len(o.blocks) > FEWEST_BLOCKS and o not in supply.releasing]
        return sorted(found, key=lambda other: -len(other.blocks))

    def book(self) -> None:
        """Writes to the ledger which blocks leave their slots. A slot may have been preempted since that was
        decided: then it has left its own."""
        self._offloading = [offload for offload in self._offloading if offload.slot in self._ledger.occupied]
        for offload in self._offloading:
            self._ledger.offload(offload)
        self._draft.offloads += self._offloading
        self._offloading.clear()

    def admit(self, occupancy: Occupancy, prefix: Sequence[Source]) -> None:
        """A long request has just been admitted, with what a tier has of it: its first rows, as far as they
        have blocks."""
        if prefix:
            offload = _offload(occupancy, prefix)
            self._ledger.offload(offload)
            self._draft.offloads.append(offload)
        room = (occupancy.streamed + self._rules.resident) * BLOCK_SIZE - occupancy.scheduled
        left = occupancy.prefill - occupancy.scheduled
        count = min(self._limits.prefill_chunk, self._draft.budget, left, room)
        blocks = self._ledger.pool.next_free(blocks_for(occupancy.scheduled + count) - occupancy.streamed)
        self._tiers.move_out(blocks)
        grant = Grant(occupancy.slot, tuple(blocks))
        self._ledger.grant([grant])
        self._draft.grants.append(grant)
        if prefix:
            self._run(occupancy, count)
        else:
            self._ledger.schedule_chunk(self._draft.add_chunk(occupancy, count))

    def copies(self) -> bool:
        """Whether there are blocks to copy: a plan for them alone must release slots, too."""
        return any(
            self._tiers.can_copy(directory) and bool(self._missing(occupancy, count, directory))
            for occupancy, count in self._copying
            for directory in [self._rules.tier_of(occupancy.request)]
        )

    def finish(self, *, others_run: bool) -> bool:
        """Decides on layers, and copies blocks. Whether there is anything in the plan because of it. The
        other decisions are booked."""
        if self._ready:
            self._pace.begin_plan(others_run=others_run)
        for occupancy, count in self._ready:
            self._schedule(occupancy, count)
        copied = [
            self._copy(occupancy, count)
            for occupancy, count in self._copying
            if occupancy.phase is not Phase.RELEASED
        ]
        return bool(self._ready) or any(copied)

    def _run(self, occupancy: Occupancy, count: int) -> None:
        offloads = any(offload.slot == occupancy.slot for offload in self._offloading)
        if occupancy.streaming is None and not offloads:
            self._draft.add_chunk(occupancy, count)
        else:
            self._ready.append((occupancy, count))
            self._draft.budget -= count

    def _fit(self, occupancy: Occupancy, count: int, supply: BlockSupply) -> int:
        """How many of ``count`` tokens can run, after blocks have left the slot. If copies are to come with
        which more could, none."""
        held = len(occupancy.blocks)
        end = (occupancy.streamed + held) * BLOCK_SIZE
        missing = blocks_for(occupancy.scheduled + count) * BLOCK_SIZE - end
        room = self._rules.resident - held
        wanted = missing // BLOCK_SIZE - room
        if count <= 0 or wanted <= 0:
            return count
        offloaded = self._offload(occupancy, wanted, supply)
        if offloaded == wanted:
            return count
        if self._waits(occupancy, offloaded, supply):
            return 0
        return min(count, end + (room + offloaded) * BLOCK_SIZE - occupancy.scheduled)

    def _waits(self, occupancy: Occupancy, offloaded: int, supply: BlockSupply) -> bool:
        """Whether more of its blocks can leave a slot soon: when its steps have settled, or they are
        copied."""
        if occupancy.last_step > self._ledger.settled_step:
            return True
        index = occupancy.streamed + offloaded
        if index >= occupancy.registered:
            return False
        directory = self._rules.tier_of(occupancy.request)
        if directory.find(occupancy.request.key(index)) is None and not directory.next_frames(1):
            return self._preempt_after(occupancy, directory.number, supply)
        return True

    def _preempt_after(self, occupancy: Occupancy, tier: int, supply: BlockSupply) -> bool:
        """All frames of a tier are read. The slot that was admitted last gives its own back, if that was
        after ``occupancy``. Whether frames will come free."""
        readers = [
            other
            for other in self._ledger.phases[Phase.STREAMED].values()
            if other.streaming is not None and other.streaming.sources[0].tier == tier
        ]
        last = max(readers, key=lambda other: other.incarnation, default=occupancy)
        if last.incarnation > occupancy.incarnation and last not in supply.releasing:
            supply.release(last)
        return last is not occupancy or bool(self._ledger.in_flight)

    def _offload(self, occupancy: Occupancy, wanted: int, supply: BlockSupply) -> int:
        """At most ``wanted`` blocks leave a slot for their frames: the oldest, as far as they are copied.
        Returns how many do."""
        if occupancy.fetching is not None or any(o.slot == occupancy.slot for o in self._offloading):
            return 0
        directory, sources = self._rules.tier_of(occupancy.request), list[Source]()
        for index in range(occupancy.streamed, min(occupancy.registered, occupancy.streamed + wanted)):
            key = occupancy.request.key(index)
            frame = self._ledger.tiers.find_copied(directory, key)
            if frame is None:
                break
            sources.append(Source(directory.number, frame, key))
        if sources:
            self._offloading.append(_offload(occupancy, sources))
            supply.give_up(occupancy, len(sources))
        return len(sources)

    def _schedule(self, occupancy: Occupancy, count: int) -> None:
        streaming = occupancy.streaming
        assert streaming is not None
        first = streaming.next_layer
        left = self._ledger.shape.num_layers - first
        last = first + self._pace.layers(left, blocks=occupancy.streamed, rows=count)
        if first < last:
            span = Span(occupancy.slot, occupancy.scheduled, count, first, last)
            self._ledger.schedule_span(span)
            self._draft.spans.append(span)

    def _claim_frames(self, occupancy: Occupancy) -> None:
        """The next blocks that will leave a slot are to be copied, as many as there are frames for: a copy
        must not go where one is that will be needed before it. What is copied stays until it is."""
        directory = self._rules.tier_of(occupancy.request)
        first, free = occupancy.streamed, directory.num_unpinned - self._claimed[directory.number]
        count = min(occupancy.registered - first, max(0, free))
        self._claimed[directory.number] += count
        self._copying.append((occupancy, count))
        self._tiers.keep(directory, map(occupancy.request.key, range(first, first + count)))

    def _copy(self, occupancy: Occupancy, count: int) -> bool:
        """Its next blocks are copied to the tier from which they will be streamed."""
        directory = self._rules.tier_of(occupancy.request)
        return self._tiers.copy(directory, self._missing(occupancy, count, directory))

    def _missing(self, occupancy: Occupancy, count: int, directory: TierDirectory) -> dict[bytes, int]:
        """Of its next full blocks those that a tier has not got, by their keys."""
        request, first = occupancy.request, occupancy.streamed
        missing: dict[bytes, int] = {}  # the block by its key
        for index in range(first, min(first + count, occupancy.registered)):
            key = request.key(index)
            if not directory.will_have(key):
                block = self._ledger.pool.find(key)
                missing[key] = occupancy.blocks[index - first] if block is None else block
        return missing


def _offload(occupancy: Occupancy, sources: Sequence[Source]) -> Offload:
    frames = tuple(source.frame for source in sources)
    return Offload(occupancy.slot, sources[0].tier, frames, tuple(source.key for source in sources))
