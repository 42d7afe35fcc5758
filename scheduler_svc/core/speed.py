"""How fast a group is: what it has announced at its start, and from its first step on the mean times of its
recent steps.

The group's core feeds it with settled steps; the placement reads it.
"""

from __future__ import annotations

UNKNOWN_STEP_SECONDS = 0.02
UNKNOWN_PREFILL_TOKEN_SECONDS = 1e-4
"""Assumed of a group that has measured nothing and run nothing yet."""
WEIGHT = 1 / 16
"""Of one step in the mean."""
LARGEST_RATIO = 4.0
"""A step counts as this many times the mean at most, so that one pause does not keep requests away."""
FEWEST_PREFILL_TOKENS = 16
"""A step with fewer tokens of prompts says little about what each of them takes."""
MOST_SLOWDOWN = 16.0
"""What a step may say of other groups: one that is further from its group's announcement says that this was
wrong."""


class Speed:
    """Two times, in seconds.

    ``step_seconds``: of a step that only decodes, at the batch that the group has had of late.
    ``prefill_token_seconds``: what a token of a prompt adds to a step.
    """

    def __init__(self, *, step_seconds: float = 0.0, prefill_token_seconds: float = 0.0) -> None:
        """What the group has measured at its start; 0 where it has not."""
        self._step = _Time(step_seconds)
        self._prefill_token = _Time(prefill_token_seconds)

    def compare(self, slowdowns: Slowdowns) -> None:
        """Shares what steps show with the other groups of ``slowdowns``."""
        self._step.slowdown, self._prefill_token.slowdown = slowdowns.step, slowdowns.prefill_token

    @property
    def is_guess(self) -> bool:
        """Whether the time of a step is not the group's own."""
        return self._step.is_guess

    @property
    def step_seconds(self) -> float:
        """Above 0."""
        return self._step.seconds or UNKNOWN_STEP_SECONDS

    @property
    def prefill_token_seconds(self) -> float:
        """Above 0."""
        return self._prefill_token.seconds or UNKNOWN_PREFILL_TOKEN_SECONDS

    def observe(self, seconds: float, prefill_tokens: int) -> None:
        """A step took ``seconds`` from the begin of its forward to the end of its sampling."""
        if seconds <= 0:
            return
        if not prefill_tokens:
            self._step.observe(seconds)
        elif prefill_tokens >= FEWEST_PREFILL_TOKENS and self._step.seconds:
            added = (seconds - self._step.seconds) / prefill_tokens
            if added > 0:
                self._prefill_token.observe(added)


class Slowdown:
    """How many times as long as announced something takes: the mean over what all groups have run of late."""

    def __init__(self) -> None:
        self.mean = 1.0

    def observe(self, ratio: float) -> None:
        """Of one step."""
        self.mean = moved_mean(self.mean, min(max(ratio, 1 / MOST_SLOWDOWN), MOST_SLOWDOWN))


class Slowdowns:
    """Of all groups of a core.

    What a group announces it has measured on one row, with nothing else to do. Batches are larger, and groups
    of one machine share its memory and its cores. So one that has run nothing is taken for as much slower
    than announced as the others have turned out to be: else it would seem the fastest and get all requests.
    """

    def __init__(self) -> None:
        self.step = Slowdown()
        self.prefill_token = Slowdown()


class _Time:
    """Of one group: the mean of what was observed; before that, what it announced, times the slowdown."""

    def __init__(self, announced: float) -> None:
        self._announced = announced
        self._mean = 0.0
        self.slowdown = Slowdown()

    @property
    def is_guess(self) -> bool:
        return not self._mean

    @property
    def seconds(self) -> float:
        """0 if nothing is known."""
        return self._mean or self._announced * self.slowdown.mean

    def observe(self, seconds: float) -> None:
        self._mean = moved_mean(self.seconds, seconds)
        if self._announced:
            self.slowdown.observe(seconds / self._announced)


def moved_mean(mean: float, value: float) -> float:
    """The mean with one more value; the first stands for itself."""
    return mean + WEIGHT * (min(value, LARGEST_RATIO * mean) - mean) if mean else value
