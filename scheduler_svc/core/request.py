"""A live request, and its occupancy of a slot. Each refers to the other.

The core makes requests, the ledger makes occupancies and changes both, the plan builder reads them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from albireo.contract.plan import BLOCK_SIZE, Admission, Submission
from scheduler_svc.core.blocks import BlockPool, block_key

Order = tuple[float, int]
"""Position in the queue: arrival time shifted by the priority, then arrival number. Lower comes first."""


@dataclass(slots=True, eq=False)
class Request:
    """One branch of a submission, from submit until it ends. Written by the ledger."""

    submission: Submission
    order: Order
    tokens: list[int]  # prompt and settled outputs
    end: int  # len(tokens) with which it ends by length at the latest
    root: bytes  # parent of the first block's key
    family: Sequence[Request] = ()  # all branches of its prompt, itself included; empty if it is alone
    keys: list[bytes] = field(default_factory=list)  # of the first full blocks, computed on demand
    occupancy: Occupancy | None = None  # the one whose results count, also after its slot was released
    admitted: bool = False  # at least once

    @property
    def name(self) -> str:
        """Its id in plans and results."""
        return self.submission.request_id

    @property
    def needs_prompt_logprobs(self) -> bool:
        """Whether log-probabilities of the prompt are still to be computed; they come with its prefill."""
        submission = self.submission
        return submission.sampling.prompt_logprobs >= 0 and len(self.tokens) == len(submission.prompt)

    def key(self, index: int) -> bytes:
        """Key of the ``index``-th full block of the settled tokens. Each is computed once."""
        keys = self.keys
        while len(keys) <= index:
            start = len(keys) * BLOCK_SIZE
            parent = keys[-1] if keys else self.root
            keys.append(block_key(parent, self.tokens[start : start + BLOCK_SIZE]))
        return keys[index]


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
