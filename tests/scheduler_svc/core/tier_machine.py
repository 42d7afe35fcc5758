"""Random histories of groups with KV tiers: everything may fail, and groups come back to their old files."""

from __future__ import annotations

import os
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from albireo.contract.tiers import TierShape
from scheduler_svc.core import Speed

from .machine import LARGEST, NUMBERS, SEQS, CoreMachine, shape_of
from .tier_model import Faults, TierModel

EXAMPLES = int(os.environ.get("ALBIREO_TEST_EXAMPLES", "6"))
"""Histories of each machine; fewer than of others, since each is longer. Set it to thousands to hunt."""
SECONDS = st.sampled_from([0.0, 1e-5, 1e-3, 5e-3, 1.0])
"""For one block; a second is more than its tokens take to compute, some milliseconds are several steps."""


def _tiers(host: TierShape, disk: TierShape, number: int) -> tuple[TierShape, ...]:
    return (host, disk)[2 - number :]


TIERS = st.builds(
    _tiers,
    st.builds(TierShape, st.just("host"), st.integers(1, 4), SECONDS, SECONDS),
    st.builds(TierShape, st.just("disk"), st.integers(1, 12), SECONDS, SECONDS),
    st.sampled_from([0, 1, 1, 1, 2, 2, 2, 2]),
)


class TierMachine(CoreMachine):
    """Tiers are tiny, so that frames are used again while copies are under way."""

    max_in_flight = 3
    shapes = st.builds(shape_of, st.integers(3, 10), st.integers(1, SEQS + 1), st.floats(0.6, 1))
    prefix_cache = st.sampled_from([True] * 5 + [False])
    tiers = TIERS
    largest = replace(LARGEST, tiers=(TierShape("disk", 9, 0.0, 1e-4),))

    @rule(number=NUMBERS)
    def read_ahead(self, number: int) -> None:
        if group := self._group(number):
            self.world.groups[group].read()

    @rule(number=NUMBERS, fetches=st.integers(0, 2), spills=st.integers(0, 3), silent=st.booleans())
    def go_wrong(self, number: int, fetches: int, spills: int, silent: bool) -> None:
        """The next copies fail; each failure is reported, or found out by a fetch alone."""
        if tiers := self._tiers_of(number):
            tiers.faults = Faults(fetches, spills, silent)

    @rule(number=NUMBERS, every=st.integers(1, 3), first=st.integers(0, 2))
    def lose(self, number: int, every: int, first: int) -> None:
        """Some frames have lost what they held; of one tier or of both, all or every n-th."""
        if tiers := self._tiers_of(number):
            tiers.lose(sorted(tiers.frames)[first::every])

    @precondition(lambda self: self.world.groups)
    @rule(number=NUMBERS, ran=st.integers(0, 3), died=st.booleans(), kept=st.integers(0, 3))
    def restart(self, number: int, ran: int, died: bool, kept: int) -> None:
        """A group has run some more of its plans, leaves, and comes back to what its tiers have kept."""
        name = self._group(number)
        assert name
        group = self.world.groups[name]
        for _ in range(min(ran, len(group.published))):
            group.run()
        self.world.leave(name, died=died)
        if not kept:
            self.world.kept = {}
        self._join(group.shape)

    @rule(portion=st.integers(1, 9))
    def report_contents(self, portion: int) -> None:
        """So many frames are in a result, of the contents that have not been reported yet."""
        for group in self.world.groups.values():
            group.worker.tiers.portion = portion

    @rule(
        heads=st.lists(st.integers(0, 3), min_size=1, max_size=3),
        length=st.sampled_from([33, 50, 70]),
        steps=st.integers(0, 7),
        lengthened=st.booleans(),
        n=st.sampled_from([1, 1, 1, 2, 3]),
    )
    def come_back(self, heads: list[int], length: int, steps: int, lengthened: bool, n: int) -> None:
        """Conversations in turn: each begins as it did before, and takes most of the blocks."""
        longest = (self.world.context or LARGEST.max_model_len) - 1
        for number, head in enumerate(heads):
            tokens = min(length + 7 * lengthened * number, longest)
            text = tuple((11 * head + 5 * i * i) % 23 + 1 for i in range(tokens))
            self.world.advance(0.1)  # so that tiers can be written again
            self.world.submit(f"r{len(self.world.submitted)}", text, max_tokens=3, ignore_eos=True, n=n)
            for _ in range(steps):
                self.world.step()

    @rule(heads=st.permutations([0, 1, 2]), length=st.sampled_from([33, 50, 70]))
    def come_back_later(self, heads: list[int], length: int) -> None:
        """Each after the last one is over."""
        for _ in range(2):
            self.come_back(heads=heads, length=length, steps=9, lengthened=False, n=1)

    def _speed(self) -> Speed:
        return Speed(step_seconds=1e-3, prefill_token_seconds=1e-3)

    def _tiers_of(self, number: int) -> TierModel | None:
        group = self._group(number)
        return self.world.groups[group].worker.tiers if group else None
