"""The search for KV blocks that already hold the first tokens of a request.

The plan builder calls it for each request that it is about to admit, the placement for each that it places.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from albireo.contract.plan import BLOCK_SIZE, blocks_for
from scheduler_svc.core.directory import TierDirectory
from scheduler_svc.core.fetching import Source
from scheduler_svc.core.ledger import Ledger
from scheduler_svc.core.pending import Claim, Pending
from scheduler_svc.core.request import Occupancy, Phase, Request


class Frame(NamedTuple):
    """A frame of a tier that holds a block of a prefix."""

    position: int  # of the block in the prefix
    tier: int
    frame: int


class Prefix(NamedTuple):
    """Where the first tokens of a request have KV: a frame holds each block that is not there already."""

    blocks: list[int]
    frames: list[Frame]  # ascending by position
    streamed: Sequence[Source] = ()  # of a request that is streamed: all that it has

    @property
    def tokens(self) -> int:
        """How many it has."""
        return (len(self.blocks) + len(self.frames) + len(self.streamed)) * BLOCK_SIZE

    def table(self, fetched: Sequence[int]) -> list[int]:
        """The block table of the prefix, given the blocks that are filled from the frames, in their order."""
        table = list(self.blocks)
        for frame, block in zip(self.frames, fetched, strict=True):
            table.insert(frame.position, block)
        return table


NO_PREFIX = Prefix([], [])


def find_prefix(ledger: Ledger, request: Request, tiers: Sequence[TierDirectory]) -> Prefix:
    """Where the first tokens of a waiting request have KV. Its last token is not among them: it must be
    computed, to sample the next.

    ``tiers``: those from which it is worth to fetch blocks, the fastest first. Empty if log-probabilities of
    the prompt are needed, since only a prefill computes these.
    """
    if request.needs_prompt_logprobs:
        return NO_PREFIX
    cached = _cached_prefix(ledger, request, tiers)
    if request.family and len(shared := shared_blocks(ledger, request)) * BLOCK_SIZE >= cached.tokens:
        return Prefix(shared, [])
    return cached


def claim(ledger: Ledger, request: Request, prefix: Prefix) -> Claim:
    """What an admission takes that has a prefix. Those of its blocks that no request owns are free ones."""
    blocks = prefix.blocks
    revived = sum(1 for block in blocks if not ledger.pool.owners(block))
    tokens = len(request.tokens)
    return Claim(tokens - prefix.tokens, blocks_for(tokens) - len(blocks) + revived)


class KnownKeys:
    """The keys that a group has in its blocks or in some of its tiers."""

    def __init__(self, cached: Container[bytes], tiers: Sequence[TierDirectory]) -> None:
        self._places = [cached, *tiers]

    def __contains__(self, key: object) -> bool:
        return any(key in place for place in self._places)


class PrefixLengths:
    """About how many blocks :func:`find_prefix` would find for a request, in one group after the other, in
    few look-ups each. If a block is cached, those before it are taken to be, which is wrong in the rare case
    that one of them was evicted; and a group is likely to have as many as one that was looked at before."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._most = 0 if request.needs_prompt_logprobs else (len(request.tokens) - 1) // BLOCK_SIZE
        self.first = request.key(0) if self._most else b""  # no group that has not this one has any
        self._likely = 0  # blocks; the keys of the last of them and of the next one are:
        self._last = self._next = b""

    def of(self, cached: Container[bytes]) -> int:
        """How many blocks a group has, in its prefix cache or its tiers, which has the first."""
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

    One that was released owns its blocks as well: the last step that uses them has not settled. What is
    fetched or streamed may not come."""
    return (
        other.fetching is None
        and other.streaming is None
        and other.phase is not Phase.PREFILLING
        and other.scheduled >= full * BLOCK_SIZE
    )


def _cached_prefix(ledger: Ledger, request: Request, tiers: Sequence[TierDirectory]) -> Prefix:
    """Blocks of the prefix cache, or else frames, as many as continue each other from the first token on."""
    cached, frames = list[int](), list[Frame]()
    if ledger.prefix_cache:
        for index in range((len(request.tokens) - 1) // BLOCK_SIZE):
            key = request.key(index)
            block = ledger.pool.find(key)
            if block is not None:
                cached.append(block)
                continue
            found = _find_frame(index, key, tiers) if tiers else None
            if found is None:
                break
            frames.append(found)
    return Prefix(cached, frames)


def _find_frame(index: int, key: bytes, tiers: Sequence[TierDirectory]) -> Frame | None:
    for directory in tiers:
        frame = directory.find(key)
        if frame is not None:
            return Frame(index, directory.number, frame)
    return None
