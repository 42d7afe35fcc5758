"""A live request, and its occupancy of a slot. Each refers to the other.

The core makes requests, the ledger makes occupancies and changes both, the plan builder reads them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, auto
from typing import TYPE_CHECKING

from albireo.contract.plan import BLOCK_SIZE, Admission, Finish, Submission
from scheduler_svc.core.blocks import BlockPool, block_key
from scheduler_svc.core.fetching import Fetching
from scheduler_svc.core.streaming import Streaming

if TYPE_CHECKING:
    from scheduler_svc.core.decode_steps import DecodeSteps
    from scheduler_svc.core.pending import Pending

Order = tuple[float, int]
"""Position in the queue: arrival time shifted by the priority, then arrival number. Lower comes first."""
PROGRESS_TOKENS = 16
"""Outputs that settle after an admission and show that the request does not end its group."""
MOST_MISSES = 64
"""Of a request that does not fit without tiers; with more it ends."""
DEATHS_TO_RUN_ALONE = 2
"""Deaths of groups in a row after which a request runs alone; with one more it ends."""


@dataclass(slots=True, eq=False)
class Request:
    """One branch of a submission, from submit until it ends. Written by the ledger."""

    submission: Submission
    order: Order
    tokens: array[int]  # prompt and settled outputs, each 4 bytes
    end: int  # len(tokens) with which it ends by length at the latest
    root: bytes  # parent of the first block's key
    family: Sequence[Request] = ()  # all branches of its prompt, itself included; empty if it is alone
    keys: list[bytes] = field(default_factory=list)  # of the first full blocks, computed on demand
    occupancy: Occupancy | None = None  # the one whose results count, also after its slot was released
    group: Pending | None = None  # of the group where it is placed or has that occupancy
    admitted: bool = False  # at least once
    ending: Finish = Finish.NONE  # with which it is to end, once a plan or a notice has said so
    deaths: int = 0  # of groups in a row, while steps of it were in flight there and it had made no progress
    misses: int = 0  # blocks that a tier did not take or give back, while it did not come beyond
    reached: int = 0  # tokens with KV
    charged: int = 0  # of ``tokens``, what its tenant has been charged for

    @property
    def name(self) -> str:
        """Its id in plans and results."""
        return self.submission.request_id

    @property
    def known(self) -> tuple[int, ...]:
        """Prompt and settled outputs as they are in an admission."""
        prompt = self.submission.prompt
        return prompt if len(prompt) == len(self.tokens) else tuple(self.tokens)

    @property
    def num_outputs(self) -> int:
        """Settled ones."""
        return len(self.tokens) - len(self.submission.prompt)

    @property
    def runs_alone(self) -> bool:
        """Whether it may be what ends its groups."""
        return self.deaths >= DEATHS_TO_RUN_ALONE

    @property
    def needs_prompt_logprobs(self) -> bool:
        """Whether log-probabilities of the prompt are still to be computed; they come with its prefill."""
        submission = self.submission
        return submission.sampling.prompt_logprobs >= 0 and len(self.tokens) == len(submission.prompt)

    def key(self, index: int) -> bytes:
        """Key of the ``index``-th full block of the settled tokens. Each is computed once."""
        keys = self.keys
        while (known := len(keys)) <= index:
            start = known * BLOCK_SIZE
            keys.append(block_key(keys[-1] if known else self.root, self.tokens[start : start + BLOCK_SIZE]))
        return keys[index]


class Phase(IntEnum):
    """What an occupancy does. In all phases but RELEASED it holds its slot. (A key of a dict: an IntEnum's
    hash takes no call of Python code.)"""

    PREFILLING = auto()
    DECODING = auto()  # runs one row in each step
    PAUSED = auto()  # is ready to decode, but has no block for its next row
    STREAMED = auto()  # reads its first blocks from frames: it prefills and decodes by rows of spans
    FINISHED = auto()  # its finishing row has settled; the next plan releases the slot
    RELEASED = auto()  # slot and blocks cannot be used again until its last step has settled


@dataclass(slots=True, eq=False)
class Occupancy:
    """One occupancy of a slot, from the admission until slot and blocks are free. Written by the ledger.

    ``scheduled`` counts the tokens whose KV exists once every published plan has run, ``settled`` those
    whose KV exists according to the results. (Tokens in blocks that it shares with another branch count
    from the start: the steps that write them settle before any of its own. So do those that are fetched: the
    first step that reads them waits for them.)
    """

    request: Request
    slot: int
    incarnation: int  # unique within the epoch; results name the occupancy by it
    tokens: array[int]  # the request's own
    blocks: list[int]  # the block table, without those that are streamed
    prefill: int  # tokens that chunks compute, cached ones included
    computed: int  # of these, those whose KV exists according to the results
    scheduled_before: int  # ``scheduled``, while it decodes that of when it began to
    registered: int  # blocks offered to the prefix cache
    first: bool = True  # of its request
    row_limit: int = 0  # value of ``scheduled`` at which a row needs a decision: table full, or end by length
    last_step_before: int = 0  # as ``scheduled_before``
    phase: Phase = Phase.PREFILLING
    decoding: DecodeSteps | None = None  # of its group, while it decodes
    decodes_after: int = 0  # the step after which it began to
    fetching: Fetching | None = None  # what comes from tiers, until it is known to be there
    streaming: Streaming | None = None  # what is in frames instead of blocks
    unfetched: bool = False  # it has not come: nothing that was computed from then on counts

    @classmethod
    def of(cls, request: Request, admission: Admission, *, first: bool) -> Occupancy:
        """The one that an admission begins; it has no blocks yet."""
        cached = admission.num_cached
        return cls(
            request=request,
            slot=admission.slot,
            incarnation=admission.incarnation,
            tokens=request.tokens,
            blocks=[],
            prefill=len(admission.tokens),
            computed=cached,
            scheduled_before=cached,
            registered=cached // BLOCK_SIZE,
            first=first,
        )

    @property
    def scheduled(self) -> int:
        """A row that decodes runs in every step, so nothing has to be written for each."""
        decoding = self.decoding
        return self.scheduled_before + (decoding.published - self.decodes_after if decoding else 0)

    @property
    def streamed(self) -> int:
        """Blocks before those of the block table."""
        return len(self.streaming.sources) if self.streaming is not None else 0

    @property
    def last_step(self) -> int:
        """The last step that reads or writes the slot or its blocks."""
        decoding = self.decoding
        if decoding is None or decoding.published == self.decodes_after:
            return self.last_step_before
        return decoding.published

    @property
    def settled(self) -> int:
        """Tokens whose KV exists according to the results. The row that samples a token computes the KV of
        the one before, so where the prefill has settled nothing but the tokens needs to be counted."""
        return self.computed if self.computed < self.prefill else max(self.prefill, len(self.tokens) - 1)

    def append_blocks(self, blocks: Sequence[int]) -> None:
        """Appends to the block table."""
        self.blocks += blocks
        first = self.streamed if self.streaming is not None else 0
        self.row_limit = min((first + len(self.blocks)) * BLOCK_SIZE, self.request.end - 1)

    def register_blocks(self, pool: BlockPool, settled: int) -> None:
        """Offers the full blocks of the ``settled`` tokens to the prefix cache."""
        while (index := self.registered) < settled // BLOCK_SIZE:
            first = self.streamed if self.streaming is not None else 0
            pool.register(self.blocks[index - first], self.request.key(index))
            self.registered = index + 1

    @property
    def progressed(self) -> bool:
        """Whether so many outputs have settled since its admission that it does not end its group."""
        return len(self.tokens) >= self.prefill + PROGRESS_TOKENS

    @property
    def at_length_end(self) -> bool:
        """Whether the row that must end the request by its length is scheduled."""
        return self.scheduled >= self.request.end - 1
