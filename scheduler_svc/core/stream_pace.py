"""How many layers of its rows a streamed slot runs in one step while others run.

The core of a group makes it. It matters to the core that makes the plans alone.
"""

from __future__ import annotations

from albireo.contract.plan import GroupShape
from scheduler_svc.core.speed import Speed, moved_mean
from scheduler_svc.core.step_in_flight import StepInFlight

STREAM_SHARE = 0.05
"""Of a step's time, that streamed slots may add to it while others run."""
PLAIN_STEPS = 16
"""One step of so many has no streamed rows while others run: its time says what the others' rows take."""


class StreamPace:
    """Credit, in seconds: it grows with each plan, and the layers of a span cost what they are expected to
    add to the step."""

    def __init__(self, speed: Speed, shape: GroupShape) -> None:
        self._speed = speed
        self._num_layers = max(1, shape.num_layers)
        seconds = max((tier.read_block_seconds for tier in shape.tiers), default=0.0)
        self._unit = seconds / self._num_layers  # that a layer of a streamed block adds
        self._credit = 0.0
        self._plans = 0

    def begin_plan(self) -> None:
        """A plan is being made in which others run."""
        self._plans += 1
        self._credit += STREAM_SHARE * self._speed.step_seconds

    def layers(self, left: int, *, blocks: int, rows: int) -> int:
        """How many of the ``left`` layers of a span run in the plan, while others run. ``blocks``:
        streamed ones."""
        if self._plans % PLAIN_STEPS == 0:
            return 0
        seconds = blocks * self._unit + rows * self._row_seconds
        if seconds <= 0:
            return left
        self._credit = min(self._credit, seconds * self._num_layers)
        count = min(left, int(self._credit / seconds))
        self._credit -= count * seconds
        return count

    def observe(self, seconds: float, step: StepInFlight) -> None:
        """A step with spans has taken so long."""
        if step.streamed_blocks <= 0:
            return
        tokens = step.prefill_tokens + step.streamed_rows / self._num_layers
        others = self._speed.step_seconds + tokens * self._speed.prefill_token_seconds
        self._unit = moved_mean(self._unit, max(0.0, seconds - others) / step.streamed_blocks)

    @property
    def _row_seconds(self) -> float:
        """That a layer of a row adds."""
        return self._speed.prefill_token_seconds / self._num_layers
