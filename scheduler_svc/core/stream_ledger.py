"""The part of a group's ledger that concerns streamed slots.

The ledger makes and calls it.
"""

from __future__ import annotations

from albireo.contract.tiers import Offload, Span, Spill
from scheduler_svc.core.blocks import BlockPool
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.occupancies import Occupancies
from scheduler_svc.core.request import Occupancy, Phase
from scheduler_svc.core.step_in_flight import StepInFlight
from scheduler_svc.core.streaming import Streaming
from scheduler_svc.core.tier_ledger import TierLedger


class StreamLedger:
    """Slots whose first blocks are in frames, where each layer of each row reads them.

    A row of such a slot exists once it has run its last layer: only then it counts as scheduled.
    """

    def __init__(self, slots: Occupancies, pool: BlockPool, tiers: TierLedger, num_layers: int) -> None:
        self._slots = slots
        self._pool = pool
        self._tiers = tiers
        self._num_layers = num_layers

    def offload(self, offload: Offload) -> tuple[Occupancy, list[int]]:
        """The next blocks of a slot are read from frames, which hold the same, from now on. Returns those
        that leave its table: none if it was just admitted."""
        occupancy = self._slots.find(offload.slot)
        count, known = len(offload.frames), occupancy.registered - occupancy.streamed
        if (
            not 0 < count <= known
            or (occupancy.blocks and count > len(occupancy.blocks))
            or occupancy.fetching is not None
            or occupancy.phase is Phase.FINISHED
        ):
            raise ProtocolError(f"{count} blocks of slot {offload.slot} are offloaded; it has {known}")
        if occupancy.phase is not Phase.STREAMED:
            self._slots.move(occupancy, Phase.STREAMED)
        if occupancy.streaming is None:
            occupancy.streaming = Streaming()
        self._tiers.offload(occupancy, occupancy.streaming, offload)
        left, occupancy.blocks = occupancy.blocks[:count], occupancy.blocks[count:]
        occupancy.append_blocks(())
        return occupancy, left

    def schedule(self, span: Span, step: StepInFlight) -> None:
        """A step runs some layers of the next rows of a slot."""
        occupancy = self._slots.find(span.slot, Phase.STREAMED)
        streaming, end, prefill = occupancy.streaming, span.start + span.count, occupancy.prefill
        if (
            streaming is None
            or not streaming.fits(span, scheduled=occupancy.scheduled, num_layers=self._num_layers)
            or end > min(occupancy.row_limit, max(prefill, span.start + 1))
            or any(other is occupancy for other in step.spans)
        ):
            raise ProtocolError(f"slot {span.slot} cannot run {span}")
        occupancy.last_step_before = step.step
        step.spans.append(occupancy)
        step.streamed_blocks += (span.last_layer - span.first_layer) * occupancy.streamed
        step.streamed_rows += (span.last_layer - span.first_layer) * span.count
        step.streamed_prompt |= span.count > 1
        if not streaming.advance(span, num_layers=self._num_layers):
            return
        occupancy.scheduled_before = end
        if span.start >= prefill:
            step.decoded.append(occupancy)
        else:
            step.chunks.append((occupancy, end))

    def uncached(self, spill: Spill) -> set[tuple[int, bytes]]:
        """Blocks that are spilled under keys that slots know them by, but the prefix cache does not: there
        they stood back for other blocks with the same content, which may be gone."""
        pairs = zip(spill.blocks, spill.keys, strict=True)
        return {
            (block, key)
            for block, key in pairs
            if 0 <= block < self._pool.num_blocks and self._is_known(block, key)
        }

    def _is_known(self, block: int, key: bytes) -> bool:
        if self._pool.key_of(block) is not None:
            return False
        for occupancy in self._slots.by_slot.values():
            known = occupancy.blocks[: occupancy.registered - occupancy.streamed]
            if block in known:
                return occupancy.request.key(occupancy.streamed + known.index(block)) == key
        return False
