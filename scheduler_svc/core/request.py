"""A live request: its tokens, its place in the queue and the keys of its blocks.

The core makes it, the ledger changes it, the plan builder reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from albireo.contract.plan import BLOCK_SIZE, Submission
from scheduler_svc.core.blocks import block_key
from scheduler_svc.core.occupancy import Occupancy

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
