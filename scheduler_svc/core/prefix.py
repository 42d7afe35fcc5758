"""The search for KV blocks that already hold the first tokens of a request.

The plan builder calls it, for each request that it is about to admit; the placement, for a request that it
is about to place where a part of it is cached.
"""

from __future__ import annotations

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.pending import Claim
from scheduler_svc.core.request import Occupancy, Phase, Request


def prefix_blocks(ledger: Ledger, request: Request) -> list[int]:
    """Blocks that hold the first tokens of a waiting request. Its last token is not among them: it must be
    computed, to sample the next.

    Empty if log-probabilities of the prompt are needed, since only a prefill computes these.
    """
    if request.needs_prompt_logprobs:
        return []
    return max(shared_blocks(ledger, request), cached_blocks(ledger, request), key=len)


def claim(ledger: Ledger, request: Request, prefix: list[int]) -> Claim:
    """What an admission takes that shares the blocks ``prefix``. Those that no request owns are free ones."""
    revived = sum(1 for block in prefix if not ledger.pool.owners(block))
    tokens = len(request.tokens)
    return Claim(tokens - len(prefix) * BLOCK_SIZE, blocks_for(tokens) - len(prefix) + revived)


def shared_blocks(ledger: Ledger, request: Request) -> list[int]:
    """Full blocks of the prompt that another branch has in this group, once the plans before have run."""
    full = shareable(request)
    for branch in request.family:
        other = branch.occupancy
        if other and branch.group is ledger.pending and lends(other, full):
            return other.blocks[:full]
    return []


def shareable(request: Request) -> int:
    """How many full blocks of its prompt another branch can share with it."""
    return min(len(request.submission.prompt), len(request.tokens) - 1) // BLOCK_SIZE


def lends(other: Occupancy, full: int) -> bool:
    """Whether the first ``full`` blocks of another branch have KV once all published plans have run.

    One that was released owns its blocks as well: the last step that uses them has not settled."""
    return other.phase is not Phase.PREFILLING and other.scheduled >= full * BLOCK_SIZE


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
