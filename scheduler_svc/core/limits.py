"""The limits of the scheduler: what the operator allows one step, one plan and one request to take.

The service makes them from its settings; the cores and the plan builder read them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from albireo.contract.plan import BLOCK_SIZE, GroupShape, blocks_for
from albireo.contract.tiers import most_blocks


def spare_blocks(shape: GroupShape) -> int:
    """Free KV blocks that an admission leaves while other requests run, so that these do not preempt it at
    once."""
    return max(1, shape.num_blocks // 100)


def usable_blocks(shape: GroupShape) -> int:
    """That one request can have in addition to those that an admission leaves."""
    return max(1, shape.num_blocks - spare_blocks(shape))


def is_long(shape: GroupShape, tokens: int) -> bool:
    """Whether a slot cannot have the blocks of so many tokens, in a group where requests may be longer than
    its blocks."""
    longer = shape.max_model_len > shape.num_blocks * BLOCK_SIZE
    return longer and blocks_for(tokens) > usable_blocks(shape)


KEPT_SHARE = 32
"""While tenants compete, one slot of so many in each group, rounded, is kept from those beyond their share:
none in groups so small that it would be more than a sixteenth."""
SLOTS_OF_A_CHUNK = 2
"""So many free slots, apart from these, let them prefill one chunk more in the same step."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets and settings of the scheduler. Nothing here changes while an epoch lasts."""

    max_num_batched_tokens: int = 2048  # tokens of one step, decoding rows and chunks together
    max_num_seqs: int = 256  # requests that hold a slot of one group at once
    prefill_chunk: int = 512  # tokens of one chunk, at most
    max_in_flight: int = 2  # plans published and not settled, at most; 1 = synchronous
    prefix_cache: bool = True
    priority_seconds: float = 10.0  # the head start that one level of priority buys
    digest_every: int = 64  # steps from one digest to the next
    shared_prefix_cache: bool = False  # one cache for all tenants, who can then find out what others sent
    prefill_weight: float = 1.0  # service that a computed token of a prompt counts as in fair shares
    decode_weight: float = 2.0  # and an output token; the paper of the fair queue has these values

    def open_to_all(self, free_slots: int, prefill: int) -> bool:
        """Whether a group has a slot for tenants beyond their share, too, while tenants compete.

        ``prefill``: tokens of prompts that its next step computes already. The last ``free_slots`` are kept
        for the others. Of the rest, those beyond their share get one where nothing is prefilled, and more at
        once the more are free: prompts that come in bursts make steps long, for which all others wait. Where
        slots come free faster than this fills them, more are free, so that more is prefilled: a proportional
        control, which needs no knowledge of the load. That a bound of a step's prefill keeps latencies low is
        from Sarathi-Serve (Agrawal et al., OSDI 2024).
        """
        kept = (self.max_num_seqs + KEPT_SHARE // 2) // KEPT_SHARE
        others = free_slots - kept - 1
        return SLOTS_OF_A_CHUNK * prefill <= others * self.prefill_chunk

    def held(self, shape: GroupShape) -> GroupShape:
        """A group as it can be used: without a prefix cache nothing is streamed from its tiers, and requests
        are no longer than its blocks hold."""
        if self.prefix_cache or not shape.tiers:
            return shape
        longest = min(shape.max_model_len, shape.num_blocks * BLOCK_SIZE)
        return replace(shape, max_model_len=longest, tiers=())

    def of_group(self, shape: GroupShape) -> Limits:
        """Those of one group, which may have fewer slots than ``max_num_seqs``. Raises ValueError if they
        make no sense, by themselves or for the group."""
        limits = replace(self, max_num_seqs=min(self.max_num_seqs, shape.max_seqs))
        limits._check(shape)
        return limits

    def _check(self, shape: GroupShape) -> None:
        if min(self.max_num_seqs, self.prefill_chunk, self.max_in_flight, self.digest_every) < 1:
            raise ValueError("max_num_seqs, prefill_chunk, max_in_flight and digest_every start at 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError("max_num_batched_tokens is below max_num_seqs: a decoding row might not fit")
        if self.priority_seconds < 0:
            raise ValueError("priority_seconds is negative")
        if min(self.prefill_weight, self.decode_weight) < 0:
            raise ValueError("prefill_weight or decode_weight is negative")
        if shape.max_model_len < 2:
            raise ValueError("max_model_len has no space for a prompt and an output token")
        blocks = shape.num_blocks
        if shape.num_layers:
            blocks = most_blocks(shape.num_blocks, (tier.frames for tier in shape.tiers))
        if shape.max_model_len > blocks * BLOCK_SIZE:
            raise ValueError(
                f"max_model_len {shape.max_model_len} does not fit into {blocks} blocks: "
                "a request might not fit alone"
            )
