"""An occupancy: one request in one slot, from its admission until slot and blocks are free.

The ledger makes and changes it; the plan builder reads it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from albireo.contract.plan import BLOCK_SIZE, Admission

if TYPE_CHECKING:
    from scheduler_svc.core.blocks import BlockPool
    from scheduler_svc.core.request import Request


class Phase(Enum):
    """What an occupancy does. In all phases but RELEASED it holds its slot."""

    PREFILLING = auto()
    DECODING = auto()  # runs one row in each step
    PAUSED = auto()  # is ready to decode, but has no block for its next row
    FINISHED = auto()  # its finishing row has settled; the next plan releases the slot
    RELEASED = auto()  # slot and blocks cannot be used again until its last step has settled


@dataclass(slots=True, eq=False)
class Occupancy:
    """One occupancy of a slot, from the admission until slot and blocks are free. Written by the ledger.

    ``scheduled`` counts the tokens whose KV exists once every published plan has run, ``settled`` those
    whose KV exists according to the results. (Tokens in blocks that it shares with another branch count
    from the start: the steps that write them settle before any of its own.) A decoding row computes the KV
    of the newest token and samples the next, so ``settled`` is one below ``len(tokens)`` there.
    """

    request: Request
    slot: int
    incarnation: int  # unique within the epoch; results name the occupancy by it
    tokens: list[int]  # the request's own list
    blocks: list[int]  # the block table
    scheduled: int
    settled: int
    registered: int  # blocks offered to the prefix cache
    register_at: int  # value of ``settled`` from which there is another one to offer
    row_limit: int = 0  # value of ``scheduled`` at which a row needs a decision: table full, or end by length
    last_step: int = 0  # the last step that reads or writes the slot or its blocks
    phase: Phase = Phase.PREFILLING

    @classmethod
    def of(cls, request: Request, admission: Admission, *, prefix_cache: bool) -> Occupancy:
        """The one that an admission begins; it has no blocks yet. ``prefix_cache``: whether it offers any."""
        cached = admission.num_cached
        return cls(
            request=request,
            slot=admission.slot,
            incarnation=admission.incarnation,
            tokens=request.tokens,
            blocks=[],
            scheduled=cached,
            settled=cached,
            registered=cached // BLOCK_SIZE,
            register_at=cached + BLOCK_SIZE if prefix_cache else sys.maxsize,
        )

    def append_blocks(self, blocks: Sequence[int]) -> None:
        """Appends to the block table."""
        self.blocks += blocks
        self.row_limit = min(len(self.blocks) * BLOCK_SIZE, self.request.end - 1)

    def register_blocks(self, pool: BlockPool) -> None:
        """Offers the full settled blocks to the prefix cache."""
        full = self.settled // BLOCK_SIZE
        for index in range(self.registered, full):
            pool.register(self.blocks[index], self.request.key(index))
        self.registered = full
        self.register_at = (full + 1) * BLOCK_SIZE

    @property
    def at_length_end(self) -> bool:
        """Whether the row that must end the request by its length is scheduled."""
        return self.scheduled >= self.request.end - 1
