"""Groups of measured steps that compute about the same, each with the median of its durations."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from albireo.planning.calibration.steps import MeasuredStep
from worker_svc.cost.work import StepWork

COUNTED = 16
"""Steps from which on further ones add no weight to a group."""


@dataclass(frozen=True, slots=True)
class Group:
    """Steps that compute about the same."""

    work: StepWork  # of the step with the median duration
    parallel: bool
    seconds: float
    steps: int
    spread: float = 0.0  # half the distance between their quartiles, as a share of the median

    @property
    def weight(self) -> float:
        """In sums of squares: the deviation of a median falls with the root of the number of steps."""
        return math.sqrt(min(self.steps, COUNTED))


def grouped(steps: Iterable[MeasuredStep], duration: Callable[[MeasuredStep], float]) -> list[Group]:
    """Groups of the steps whose duration is above 0."""
    found: dict[Hashable, list[MeasuredStep]] = defaultdict(list)
    for step in steps:
        if duration(step) > 0:
            found[_likeness(step)].append(step)
    groups = []
    for members in found.values():
        members.sort(key=duration)
        median = members[len(members) // 2]
        quarter = len(members) // 4
        quartiles = duration(members[quarter]), duration(members[-1 - quarter])
        spread = (quartiles[1] - quartiles[0]) / 2 / duration(median)
        groups.append(Group(median.work, median.parallel, duration(median), len(members), spread))
    return groups


def _likeness(step: MeasuredStep) -> Hashable:
    """Equal for steps with the same rows and with contexts of the same half power of two."""
    work = step.work
    sizes = (_half_powers(work.context), _half_powers(work.prefill_pairs))
    kinds = (work.greedy, work.drawn, work.penalized)
    return step.load, work.decodes, work.prefill, kinds, step.parallel, sizes


def _half_powers(number: int) -> int:
    return round(2 * math.log2(number)) if number else -1
