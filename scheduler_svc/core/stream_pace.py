"""How many layers of its rows a streamed slot runs in one step.

The core of a group makes it. It matters to the core that makes the plans alone.
"""

from __future__ import annotations

from albireo.contract.plan import GroupShape
from scheduler_svc.core.speed import FEWEST_PREFILL_TOKENS, LARGEST_RATIO, WEIGHT, Speed
from scheduler_svc.core.step_in_flight import StepInFlight

STREAM_SHARE = 0.05
"""Of a step's time, that streamed slots may add to it while others run."""
PLAIN_STEPS = 16
"""Two of so many steps have no streamed rows while others run: the time of the first of them, when nothing is
read for the next one either, says what the others' rows take."""
LEAST_SHARE = 1 / 8
"""Of the time that a tier takes to read a block, that streaming it is taken to add to a step at least: reads
that others' computation hides still take some of the memory's bandwidth from it."""
MOST_SECONDS = 0.5
"""Of a step that runs streamed slots alone, if one layer takes no longer: a request that comes waits for its
end."""


class AddedSeconds:
    """What a layer of a streamed block adds to a step: the ratio of two sums over steps, of seconds and of
    layers of blocks, in which each step weighs less than the next one.

    Where a step runs few layers, they add less than steps differ by anyway: a mean of what each step shows,
    none of it below 0, would be wrong.
    """

    def __init__(self, read_seconds: float) -> None:
        """``read_seconds``: what a layer of a block takes by the tier's own measurement. It counts like some
        steps."""
        self._least = LEAST_SHARE * read_seconds
        self._seconds = read_seconds
        self._blocks = 0.0
        self.mean = read_seconds

    def observe(self, seconds: float, blocks: int) -> None:
        """So many layers of blocks have added so much to a step, or none to the one in which they are read
        ahead."""
        if not self._blocks:
            if not blocks:
                return
            self._blocks = blocks / WEIGHT
            self._seconds *= self._blocks
        self._seconds += seconds - WEIGHT * self._seconds
        self._blocks += blocks - WEIGHT * self._blocks
        self.mean = max(self._least, self._seconds / self._blocks)


class StreamPace:
    """Credit, in seconds: it grows with each plan in which others run, and the layers of a span cost what
    they are expected to add to the step."""

    def __init__(self, speed: Speed, shape: GroupShape) -> None:
        self._speed = speed
        self._num_layers = max(1, shape.num_layers)
        seconds = max((tier.read_block_seconds for tier in shape.tiers), default=0.0) / self._num_layers
        self._of_row = AddedSeconds(seconds)  # where spans have one row each
        self._of_rows = AddedSeconds(seconds)  # where one has more: each row attends to all blocks
        self._credit = 0.0
        self._plans = 0  # in which others run
        self._others_run = False  # in this plan; if they do not, what is left of the step's time:
        self._seconds_left = 0.0

    def begin_plan(self, *, others_run: bool) -> None:
        """A plan is being made that can have spans."""
        self._others_run = others_run
        self._seconds_left = MOST_SECONDS
        if others_run:
            self._plans += 1
            self._credit += STREAM_SHARE * self._speed.step_seconds

    def layers(self, left: int, *, blocks: int, rows: int) -> int:
        """How many of the ``left`` layers of a span run in the plan. ``blocks``: streamed ones."""
        added = self._of_rows if rows > 1 else self._of_row
        seconds = blocks * added.mean + rows * self._speed.prefill_token_seconds / self._num_layers
        if not self._others_run:
            count = max(1, min(left, int(self._seconds_left / seconds)))
            self._seconds_left -= count * seconds
            return count
        if self._plans % PLAIN_STEPS < 2:
            return 0
        self._credit = min(self._credit, seconds * self._num_layers)
        count = min(left, int(self._credit / seconds))
        self._credit -= count * seconds
        return count

    def observe(self, seconds: float, *steps: StepInFlight) -> None:
        """A step has taken so long which has spans, or the one behind it, which can have been read ahead. One
        that prefills others says little of what they add."""
        step = steps[0]
        if step.prefill_tokens >= FEWEST_PREFILL_TOKENS:
            return
        added = self._of_rows if any(one.streamed_prompt for one in steps) else self._of_row
        blocks = step.streamed_blocks
        tokens = step.prefill_tokens + step.streamed_rows / self._num_layers
        others = self._speed.step_seconds + tokens * self._speed.prefill_token_seconds
        most = LARGEST_RATIO * (others + blocks * added.mean)
        added.observe(min(seconds, most) - others, blocks)
