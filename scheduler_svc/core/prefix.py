"""The search for KV blocks that already hold the first tokens of a request.

The plan builder calls it for each request that it is about to admit, the placement for each that it places.
"""

from __future__ import annotations

from collections.abc import Mapping

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.pending import Claim, Pending
from scheduler_svc.core.request import Occupancy, Phase, Request


def prefix_blocks(ledger: Ledger, request: Request) -> list[int]:
    """Blocks that hold the first tokens of a waiting request. Its last token is not among them: it must be
    computed, to sample the next.

    Empty if log-probabilities of the prompt are needed, since only a prefill computes these.
    """
    if request.needs_prompt_logprobs:
        return []
    cached = cached_blocks(ledger, request)
    return max(shared_blocks(ledger, request), cached, key=len) if request.family else cached


def claim(ledger: Ledger, request: Request, prefix: list[int]) -> Claim:
    """What an admission takes that shares the blocks ``prefix``. Those that no request owns are free ones."""
    revived = sum(1 for block in prefix if not ledger.pool.owners(block))
    tokens = len(request.tokens)
    return Claim(tokens - len(prefix) * BLOCK_SIZE, blocks_for(tokens) - len(prefix) + revived)


class PrefixLengths:
    """About how many blocks :func:`prefix_blocks` would find for a request, in one group after the other, in
    few look-ups each. If a block is cached, those before it are taken to be, which is wrong in the rare case
    that one of them was evicted; and a group is likely to have as many as one that was looked at before."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._most = 0 if request.needs_prompt_logprobs else (len(request.tokens) - 1) // BLOCK_SIZE
        self.first = request.key(0) if self._most else b""  # no group that has not this one has any
        self._likely = 0  # blocks; the keys of the last of them and of the next one are:
        self._last = self._next = b""

    def of(self, cached: Mapping[bytes, int]) -> int:
        """How many blocks are in the prefix cache of a group, which has the first."""
        if self._likely and self._last in cached and self._next not in cached:
            return self._likely
        most, key = self._most, self._request.key
        length, beyond = 1, 2
        while beyond <= most and key(beyond - 1) in cached:
            length, beyond = beyond, 2 * beyond
        beyond = min(beyond, most + 1)
        while beyond - length > 1:
            middle = (length + beyond) // 2
            if key(middle - 1) in cached:
                length = middle
            else:
                beyond = middle
        self._likely, self._last, self._next = length, key(length - 1), key(length) if length < most else b""
        return length


def shared_blocks(ledger: Ledger, request: Request) -> list[int]:
    """Full blocks of the prompt that another branch has in this group, once the plans before have run."""
    full = shareable(request)
    for branch in request.family:
        other = branch.occupancy
        if other and branch.group is ledger.pending and lends(other, full):
            return other.blocks[:full]
    return []


def lending_groups(request: Request) -> set[Pending]:
    """Those in which another branch has its prompt."""
    full = shareable(request)
    branches = (branch for branch in request.family if branch.occupancy and lends(branch.occupancy, full))
    return {branch.group for branch in branches if branch.group}


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
