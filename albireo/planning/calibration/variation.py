"""How much the durations of like steps differ, and for how long: fitted to measured steps.

Of two steps whose distance in time is d, half the mean square difference of their logarithms is
step^2 + slow^2 (1 - exp(-d / seconds)): the variogram (Matheron, 1963) of the process that simulations draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from albireo.planning.calibration.groups import grouped
from albireo.planning.calibration.least_squares import Vector
from albireo.planning.calibration.steps import MeasuredStep
from worker_svc.cost.device import Variation
from worker_svc.cost.physical import PhysicalCost

DISTANCES = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
"""Bounds of the classes of distances, in seconds. What differs between rounds, minutes later, is the mean
speed of the machine; it is not drawn in simulations, most of which are shorter."""
PAIRS = 20
"""Fewest of a class."""
MOST = 2.0
"""Spread that a device file may have."""
SECONDS = np.geomspace(0.1, 20.0, 40)
"""What the duration of the slow part is chosen from."""


def measure_variation(cost: PhysicalCost, steps: Sequence[MeasuredStep]) -> Variation:
    """Of T3, beyond what ``cost`` predicts; steady where there are too few like steps."""
    distances, halves = _pairs(cost, steps)
    classes = np.digitize(distances, DISTANCES)
    kept = [number for number in range(1, len(DISTANCES)) if np.sum(classes == number) >= PAIRS]
    if not kept:
        return Variation(tp=cost.tp)
    at = np.array([distances[classes == number].mean() for number in kept])
    found = np.array([halves[classes == number].mean() for number in kept])
    fits = [(*_variances(at, found, seconds), float(seconds)) for seconds in SECONDS]
    _, step, slow, seconds = min(fits)
    step, slow = min(step**0.5, MOST), min(slow**0.5, MOST)
    return Variation(tp=cost.tp, step_spread=step, slow_spread=slow, slow_seconds=seconds)


def _pairs(cost: PhysicalCost, steps: Sequence[MeasuredStep]) -> tuple[Vector, Vector]:
    """Distances of all pairs of like steps, and half the squares of their differences."""
    distances, halves = [np.empty(0)], [np.empty(0)]
    for group in grouped((step for step in steps if step.work.rows), lambda step: step.t3):
        at = np.array([step.at for step in group.steps])
        predicted = np.array([cost.forward_seconds(step.work) for step in group.steps])
        beyond = np.log([step.t3 for step in group.steps]) - np.log(predicted)
        first, second = np.triu_indices(len(at), k=1)
        distances.append(np.abs(at[first] - at[second]))
        halves.append((beyond[first] - beyond[second]) ** 2 / 2)
    return np.concatenate(distances), np.concatenate(halves)


def _variances(at: Vector, found: Vector, seconds: float) -> tuple[float, float, float]:
    """Squared error, and the variances of the two parts; neither is negative."""
    slow = 1 - np.exp(-at / seconds)
    both = np.linalg.lstsq(np.stack([np.ones(len(at)), slow], axis=1), found, rcond=None)[0]
    candidates = [tuple(both), (float(found.mean()), 0.0), (0.0, float(slow @ found / (slow @ slow)))]
    fits = [
        (float(np.sum((step + of_slow * slow - found) ** 2)), float(step), float(of_slow))
        for step, of_slow in candidates
        if min(step, of_slow) >= 0
    ]
    return min(fits)
