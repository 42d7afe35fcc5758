"""A request, and its stay in a slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from albireo.contract.plan import BLOCK_SIZE, Finish, Submission
from scheduler_svc.core.blocks import block_key

Order = tuple[float, int]
"""Place in the queue: arrival time shifted by the priority, then arrival number. Lower comes first."""


class Phase(Enum):
    """Where a stay stands. All but LEFT hold the slot."""

    PREFILLING = auto()
    DECODING = auto()  # runs a row in each step
    PAUSED = auto()  # would run rows, waits for a block
    FINISHED = auto()  # its finishing row has settled; the next plan releases it
    LEFT = auto()  # released; slot and blocks are fenced until its last step has settled


@dataclass(slots=True, eq=False)
class Request:
    """A live request, from submit to its one final reason. Mutated by the core and the ledger."""

    submission: Submission
    order: Order
    tokens: list[int]  # prompt and settled outputs
    end: int  # len(tokens) with which it ends by length at the latest
    root: bytes  # parent of the first block's key
    family: Sequence[Request] = ()  # all branches of its prompt, itself included; empty if it is alone
    keys: list[bytes] = field(default_factory=list)  # of the first full blocks, as far as anyone asked
    stay: Stay | None = None  # the one whose results still count, also after it has left its slot
    admitted: bool = False  # ever
    reason: Finish = Finish.NONE  # why the next plan ends it

    @property
    def tells_prompt(self) -> bool:
        """Whether log-probabilities of the prompt are still to be told; they come with its prefill."""
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


@dataclass(slots=True, eq=False)
class Stay:
    """One stay of a request in a slot, from its admission to the fence. Mutated by draft, core and ledger.

    ``scheduled`` counts the tokens whose KV exists once every published plan has run, ``settled`` those
    whose KV exists by what results have confirmed. (Those of blocks that it shares with another branch
    count from the start: the steps that write them settle before any of its own.) A decoding row computes
    the KV of the newest token and samples the next, so ``settled`` is one below ``len(tokens)`` there.
    """

    request: Request
    slot: int
    incarnation: int
    tokens: list[int]  # the request's own list
    blocks: list[int]  # the block table
    scheduled: int
    settled: int
    registered: int  # blocks offered to the prefix cache
    register_at: int  # ``settled`` from which there is another one to offer
    row_limit: int = 0  # ``scheduled`` up to which rows need no decision: table full, or end by length
    last_step: int = 0  # the last step that touches the slot or its blocks
    phase: Phase = Phase.PREFILLING

    def extend(self, blocks: list[int]) -> None:
        """Appends to the block table."""
        self.blocks += blocks
        self.row_limit = min(len(self.blocks) * BLOCK_SIZE, self.request.end - 1)

    @property
    def at_length_end(self) -> bool:
        """Whether the row that must end the request by its length is scheduled."""
        return self.scheduled >= self.request.end - 1
