"""Groups of measured steps that compute about the same, each with the mean of its durations.

Means, since throughput and TPOT are sums over all steps, rare slow ones included.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, fields

import numpy as np

from albireo.planning.calibration.steps import MeasuredStep
from worker_svc.cost.work import StepWork

COUNTED = 16
"""Steps from which on further ones add no weight to a group."""
DISTURBED = 3.0
"""Times the median: what takes longer was held up from outside, and counts as that long."""


@dataclass(frozen=True, slots=True)
class Group:
    """Steps of one load that compute about the same."""

    steps: tuple[MeasuredStep, ...]
    parallel: bool
    seconds: float  # mean
    spread: float = 0.0  # half the distance between their quartiles, as a share of the mean

    @property
    def weight(self) -> float:
        """In sums of squares: the deviation of a mean falls with the root of the number of steps."""
        return math.sqrt(min(len(self.steps), COUNTED))

    def mean(self, predict: Callable[[StepWork], float]) -> float:
        """Of what ``predict`` says of each step, in its unit."""
        return math.fsum(predict(step.work) for step in self.steps) / len(self.steps)


def grouped(steps: Iterable[MeasuredStep], duration: Callable[[MeasuredStep], float]) -> list[Group]:
    """Groups of the steps whose duration is above 0."""
    found: dict[Hashable, list[MeasuredStep]] = defaultdict(list)
    for step in steps:
        if duration(step) > 0:
            found[_likeness(step)].append(step)
    groups = []
    for members in found.values():
        durations = np.array([duration(step) for step in members])
        mean = float(np.minimum(durations, DISTURBED * np.median(durations)).mean())
        low, high = np.quantile(durations, (0.25, 0.75))
        groups.append(Group(tuple(members), members[0].parallel, mean, float(high - low) / 2 / mean))
    return groups


def _likeness(step: MeasuredStep) -> Hashable:
    """Equal for steps whose counts all have the same half power of two."""
    counts = (_half_powers(getattr(step.work, count.name)) for count in fields(StepWork))
    return step.load, step.parallel, *counts


def _half_powers(number: int) -> int:
    return round(2 * math.log2(number)) if number else -1
