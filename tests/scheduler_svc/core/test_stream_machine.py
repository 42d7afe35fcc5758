"""Random histories of groups whose requests may be longer than their blocks: all is streamed that must be."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import rule

from albireo.contract.plan import BLOCK_SIZE, GroupShape
from albireo.contract.tiers import TierShape, most_blocks

from .machine import LARGEST, SEQS, explore, shape_of
from .tier_machine import EXAMPLES, SECONDS, TIERS, TierMachine

READS = st.sampled_from([1e-4, 3e-4, 1e-3, 0.03])
"""So that a step has room for some layers of some rows in addition to others; or not for all of one row."""


class StreamMachine(TierMachine):
    """Few blocks, so that most prompts of two blocks and more are streamed."""

    shapes = st.builds(shape_of, st.integers(2, 9), st.integers(1, SEQS + 1), st.just(1.0))
    prefix_cache = st.just(True)  # there are no tiers without
    tiers = st.one_of(
        TIERS.filter(bool),
        st.tuples(st.builds(TierShape, st.just("disk"), st.integers(6, 20), READS, SECONDS)),
    )
    largest = replace(LARGEST, max_model_len=30 * BLOCK_SIZE)

    @rule(blocks=st.integers(2, 20), head=st.integers(0, 2), short=st.integers(0, 3), steps=st.integers(0, 9))
    def submit_long(self, blocks: int, head: int, short: int, steps: int) -> None:
        """A prompt that may be streamed, and some that run with it."""
        for number in range(1 + short):
            tokens = 20 if number else min(16 * blocks, (self.world.context or BLOCK_SIZE) - 5)
            text = tuple((5 * (head + number) + 3 * i * i) % 23 + 1 for i in range(tokens))
            name = f"r{len(self.world.submitted)}"
            self.world.submit(name, text, max_tokens=30 if number else 4, ignore_eos=True)
        for _ in range(steps):
            self.world.step()

    @staticmethod
    def with_tiers(shape: GroupShape, tiers: tuple[TierShape, ...]) -> GroupShape:
        blocks = most_blocks(shape.num_blocks, [tier.frames for tier in tiers])
        return replace(shape, tiers=tiers, num_layers=3, max_model_len=blocks * BLOCK_SIZE)


class SynchronousStreamMachine(StreamMachine):
    max_in_flight = 1


class FollowedStreamMachine(StreamMachine):
    followed = True
    max_groups = 2

    @rule()
    def promote(self) -> None:
        self.world.promote()


TestStreamsSynchronous = explore(SynchronousStreamMachine, examples=EXAMPLES)
TestStreams = explore(StreamMachine, examples=EXAMPLES)
TestStreamsFollowed = explore(FollowedStreamMachine, examples=EXAMPLES)
