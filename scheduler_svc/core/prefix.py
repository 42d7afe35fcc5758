"""The search for KV blocks that already hold the first tokens of a request.

The plan builder calls it, for each request that it is about to admit.
"""

from __future__ import annotations

from albireo.contract.plan import BLOCK_SIZE
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.request import Phase, Request


def prefix_blocks(ledger: Ledger, request: Request) -> list[int]:
    """Blocks that hold the first tokens of a waiting request. Its last token is not among them: it must be
    computed, to sample the next.

    Empty if log-probabilities of the prompt are needed, since only a prefill computes these.
    """
    if request.needs_prompt_logprobs:
        return []
    return max(shared_blocks(request), cached_blocks(ledger, request), key=len)


def shared_blocks(request: Request) -> list[int]:
    """Full blocks of the prompt that another branch has, once the plans before this one have run."""
    full = min(len(request.submission.prompt), len(request.tokens) - 1) // BLOCK_SIZE
    for branch in request.family:
        other = branch.occupancy
        # One that was released owns its blocks as well: the last step that uses them has not settled.
        if other and other.phase is not Phase.PREFILLING and other.scheduled >= full * BLOCK_SIZE:
            return other.blocks[:full]
    return []


def cached_blocks(ledger: Ledger, request: Request) -> list[int]:
    """Blocks of the prefix cache, as many as continue each other from the first token on."""
    cached: list[int] = []
    if ledger.prefix_cache:
        for index in range((len(request.tokens) - 1) // BLOCK_SIZE):
            block = ledger.pool.find(request.key(index))
            if block is None:
                break
            cached.append(block)
    return cached
