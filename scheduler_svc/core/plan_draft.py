"""The plan that is being built: what is decided so far.

The plan builder makes it, and with it the builder of what streamed slots run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from albireo.contract.plan import Admission, Chunk, Ended, Grant, Plan
from albireo.contract.tiers import Fetch, Offload, Span, Spill
from scheduler_svc.core.request import Occupancy


@dataclass(slots=True)
class PlanDraft:
    """What the plan will say, and what is decided and not booked in the ledger."""

    ended: list[Ended] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    paused: list[int] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    admissions: list[Admission] = field(default_factory=list)
    offloads: list[Offload] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    granting: list[tuple[int, int]] = field(default_factory=list)  # slot, number of blocks: not named yet
    budget: int = 0  # tokens left for chunks and rows of streamed slots
    prefill: int = 0  # tokens of chunks

    def add_chunk(self, occupancy: Occupancy, count: int) -> Chunk:
        """The next tokens of a slot are prefilled."""
        chunk = Chunk(occupancy.slot, occupancy.scheduled, count)
        self.chunks.append(chunk)
        self.budget -= count
        self.prefill += count
        return chunk

    def plan(
        self,
        epoch: int,
        step: int,
        *,
        spills: tuple[Spill, ...],
        fetches: tuple[Fetch, ...],
        num_decodes: int,
        digest: int | None,
    ) -> Plan:
        """The finished plan."""
        return Plan(
            epoch=epoch,
            step=step,
            released=tuple(self.released),
            paused=tuple(self.paused),
            resumed=tuple(self.resumed),
            spills=spills,
            admissions=tuple(self.admissions),
            fetches=fetches,
            offloads=tuple(self.offloads),
            grants=tuple(self.grants),
            chunks=tuple(self.chunks),
            spans=tuple(self.spans),
            ended=tuple(self.ended),
            num_decodes=num_decodes,
            digest=digest,
        )
