"""Random histories of groups whose requests may be longer than their blocks: all is streamed that must be."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import rule

from albireo.contract.plan import BLOCK_SIZE, GroupShape
from albireo.contract.tiers import TierShape, most_blocks

from .machine import LARGEST, SEQS, explore, shape_of
from .tier_machine import SECONDS, TIERS, TierMachine

READS = st.sampled_from([1e-4, 3e-4, 1e-3])
"""So that a step has room for some layers of some rows in addition to others."""


class StreamMachine(TierMachine):
    """Few blocks, so that most prompts of two blocks and more are streamed."""

    shapes = st.builds(shape_of, st.integers(2, 6), st.integers(1, SEQS + 1), st.just(1.0))
    prefix_cache = st.just(True)  # there are no tiers without
    tiers = st.one_of(
        TIERS.filter(bool),
        st.tuples(st.builds(TierShape, st.just("disk"), st.integers(6, 20), READS, SECONDS)),
    )
    largest = replace(LARGEST, max_model_len=30 * BLOCK_SIZE)

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


TestStreamsSynchronous = explore(SynchronousStreamMachine)
TestStreams = explore(StreamMachine)
TestStreamsFollowed = explore(FollowedStreamMachine)
