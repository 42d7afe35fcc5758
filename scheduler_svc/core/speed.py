"""How fast a group is: the mean times of its recent steps.

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


class Speed:
    """Exponentially weighted means of two times, in seconds.

    ``step_seconds``: of a step that only decodes, at the batch that the group has had of late.
    ``prefill_token_seconds``: what a token of a prompt adds to a step.
    """

    def __init__(self, *, step_seconds: float = 0.0, prefill_token_seconds: float = 0.0) -> None:
        """What the group has measured at its start; 0 where it has not."""
        self._step = step_seconds
        self._prefill_token = prefill_token_seconds

    @property
    def step_seconds(self) -> float:
        """Above 0."""
        return self._step or UNKNOWN_STEP_SECONDS

    @property
    def prefill_token_seconds(self) -> float:
        """Above 0."""
        return self._prefill_token or UNKNOWN_PREFILL_TOKEN_SECONDS

    def observe(self, seconds: float, prefill_tokens: int) -> None:
        """A step took ``seconds`` from the begin of its forward to the end of its sampling."""
        if seconds <= 0:
            return
        if not prefill_tokens:
            self._step = moved_mean(self._step, seconds)
        elif prefill_tokens >= FEWEST_PREFILL_TOKENS and self._step:
            added = (seconds - self._step) / prefill_tokens
            if added > 0:
                self._prefill_token = moved_mean(self._prefill_token, added)


def moved_mean(mean: float, value: float) -> float:
    """The mean with one more value; the first stands for itself."""
    return mean + WEIGHT * (min(value, LARGEST_RATIO * mean) - mean) if mean else value
