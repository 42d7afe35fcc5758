"""How fast the KV tiers of a group are, and until when the copies that plans ask for keep them busy.

The core of a group makes it. It matters to the core that makes the plans alone: a core that follows knows
from the plans what was decided by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from albireo.contract.plan import BLOCK_SIZE
from albireo.contract.tiers import Fetch, TierRead, TierShape
from scheduler_svc.core.directory import TierDirectory
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.speed import Speed, moved_mean
from scheduler_svc.core.step_in_flight import StepInFlight

WRITE_SHARE = 0.5
"""Of what a tier can write in a step, so much is written to it behind the steps."""
MOST_WRITES = 64
"""Blocks that a plan writes to a tier at most, apart from those that would be lost otherwise."""
MOST_WAITING = 2 * MOST_WRITES
"""Blocks that wait to be written to a tier, at most: a group has buffers for not many more."""
EARLY_STEPS = 0.5
"""A step may begin so much before its KV is there, since each layer waits for its own alone."""
KEPT_SECONDS = 60.0
"""A tier that was found too slow is tried again after so long."""


class TierTimes:
    """Expected times. Fetches follow one another, and so do the writes to a tier. Times are in seconds, those
    of a moment by the caller's clock."""

    def __init__(self, tiers: Sequence[TierShape], speed: Speed) -> None:
        self._tiers = tiers
        self._speed = speed
        self._read = [tier.read_block_seconds for tier in tiers]  # means, at first as announced
        self._slow_since: list[float | None] = [None for _ in tiers]
        self._reading_until = 0.0
        self._writing_until = [0.0 for _ in tiers]

    def read_block_seconds(self, tier: int) -> float:
        """To bring one block back, of late."""
        return self._read[tier]

    def observe(self, read: TierRead) -> None:
        """A fetch has ended. Raises ProtocolError where there is no such tier."""
        if not 0 <= read.tier < len(self._tiers):
            raise ProtocolError(f"there is no tier {read.tier}")
        if read.blocks > 0 and read.seconds > 0:
            self._read[read.tier] = moved_mean(self._read[read.tier], read.seconds / read.blocks)

    def pays(self, tier: int) -> bool:
        """Whether to fetch a block takes less than to compute it."""
        return self._read[tier] < BLOCK_SIZE * self._speed.prefill_token_seconds

    def worthwhile(self, directories: Iterable[TierDirectory]) -> list[TierDirectory]:
        """Those of the tiers that pay, the fastest first."""
        return [directory for directory in directories if self.pays(directory.number)]

    def look(self, now: float) -> None:
        """Forgets what was measured of a tier long ago that does not pay, so that it is tried again."""
        for tier, since in enumerate(self._slow_since):
            if self.pays(tier):
                self._slow_since[tier] = None
            elif since is None:
                self._slow_since[tier] = now
            elif now >= since + KEPT_SECONDS:
                self._read[tier] = self._tiers[tier].read_block_seconds
                self._slow_since[tier] = None

    def fetch(self, fetches: Iterable[Fetch], now: float) -> float:
        """A plan asks for fetches of one slot. Returns when they are expected to be done."""
        seconds = sum(len(fetch.blocks) * self._read[fetch.tier] for fetch in fetches)
        self._reading_until = max(now, self._reading_until) + seconds
        return self._reading_until

    def spill(self, tier: int, blocks: int, now: float) -> None:
        """A plan asks for spills."""
        seconds = blocks * self._tiers[tier].write_block_seconds
        self._writing_until[tier] = max(now, self._writing_until[tier]) + seconds

    def next_begin(self, in_flight: Sequence[StepInFlight], now: float) -> float:
        """By when fetches must be done so that a step that is planned now hardly waits for them, after those
        in flight."""
        steps = (len(in_flight) + EARLY_STEPS) * self._speed.step_seconds
        tokens = sum(step.prefill_tokens for step in in_flight)
        return now + steps + tokens * self._speed.prefill_token_seconds

    def room(self, tier: int, now: float) -> int:
        """How many blocks can wait to be written in addition to those that do."""
        seconds = self._tiers[tier].write_block_seconds
        waiting = max(0.0, self._writing_until[tier] - now) / seconds if seconds > 0 else 0.0
        return max(0, int(MOST_WAITING - waiting))

    def writes(self, tier: int, now: float) -> int:
        """How many blocks a plan may write behind the steps."""
        if now < self.writes_at(tier):
            return 0
        seconds = self._tiers[tier].write_block_seconds
        if seconds <= 0:
            return MOST_WRITES
        return min(MOST_WRITES, max(1, int(WRITE_SHARE * self._speed.step_seconds / seconds)))

    def writes_at(self, tier: int) -> float:
        """From when on it may write any: what is to be written before is done within a step."""
        return self._writing_until[tier] - self._speed.step_seconds
