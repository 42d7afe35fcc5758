"""The speed of a simulated device, which varies as the cost model says. Rank 0 asks it for each step."""

from __future__ import annotations

import math
import random

from worker_svc.cost.device import Variation


class DrawnSpeed:
    """Factors of the durations of steps: 1 in the mean, log-normal.

    The slow part is the Ornstein-Uhlenbeck process (Uhlenbeck and Ornstein, 1930): its correlation falls
    exponentially with the time between two steps.
    """

    def __init__(self, variation: Variation, seed: int) -> None:
        """The same ``seed`` and times give the same factors."""
        self._variation = variation
        self._draw = random.Random(f"{seed} speed")
        self._slow: float | None = None  # deviation of the logarithm at the time below
        self._at = 0.0

    def factor(self, now: float) -> float:
        """Of a step that begins at ``now``, in seconds; not before the last one's begin."""
        of = self._variation
        if not of.step_spread and not of.slow_spread:
            return 1.0
        kept = 0.0 if self._slow is None else math.exp((self._at - now) / of.slow_seconds)
        self._at = now
        self._slow = kept * (self._slow or 0.0) + self._gauss(of.slow_spread) * math.sqrt(1 - kept**2)
        spread = of.step_spread**2 + of.slow_spread**2
        return math.exp(self._slow + self._gauss(of.step_spread) - spread / 2)

    def _gauss(self, spread: float) -> float:
        return self._draw.gauss(0.0, spread)
