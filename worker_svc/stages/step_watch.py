"""Which steps of a rank run, and since when. Stages keep it, the renewal thread and meters read it."""

from __future__ import annotations

from collections import deque

from albireo.runtime.clock import Clock


class StepWatch:
    """When the steps that run began. They begin in the compute stage and end in the output stage, in order:
    on a GPU a step that has been launched has not run."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began: deque[float] = deque()  # as many as the bounded queues let through
        self.step = 0  # number of the last that began, within its epoch
        self.begun = 0  # steps, in all
        self.ended = 0  # steps, in all

    def begin(self, step: int) -> None:
        self._began.append(self._clock.now())
        self.step = step
        self.begun += 1

    def end(self) -> None:
        self._began.popleft()
        self.ended += 1

    def seconds(self) -> float:
        """Age of the oldest step that runs, 0 where none does."""
        try:
            return self._clock.now() - self._began[0]
        except IndexError:
            return 0.0
