"""How far a cost model is from measured steps, by the kind of step. The record of a calibration holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from albireo.planning.calibration.groups import Group, grouped
from albireo.planning.calibration.steps import MeasuredStep
from worker_svc.cost.device import Residual
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.work import StepWork

FORWARDS: dict[str, Callable[[StepWork], bool]] = {
    "decode": lambda work: bool(work.decodes and not work.prefill),
    "prefill": lambda work: bool(work.prefill and not work.decodes),
    "mixed": lambda work: bool(work.decodes and work.prefill),
}

MANY = 4
"""Steps from which on their spread says something."""


def residuals(cost: PhysicalCost, steps: Sequence[MeasuredStep]) -> list[Residual]:
    """Of the parts T3 and T4 of steps that ``cost`` was fitted to, or of others at the same TP degree."""
    found: list[Residual] = []
    launch = cost.efficiency.step_us * 1e-6  # of a step; it lies before the timestamps of T3
    for kind, belongs in FORWARDS.items():
        groups = grouped((step for step in steps if belongs(step.work)), lambda step: step.t3)
        predicted = [group.mean(cost.forward_seconds) - launch for group in groups]
        found += _residual(f"T3 {kind}, tp {cost.tp}", groups, predicted)
    for parallel, name in ((False, "rank 0"), (True, "parallel")):
        sampling = (step for step in steps if step.work.samples and step.parallel == parallel)
        groups = grouped(sampling, lambda step: step.t4)
        sampling_seconds = partial(cost.sampling_seconds, parallel=parallel)
        predicted = [group.mean(sampling_seconds) for group in groups]
        found += _residual(f"T4 {name}, tp {cost.tp}", groups, predicted)
    return found


def _residual(what: str, groups: Sequence[Group], predicted: Sequence[float]) -> list[Residual]:
    """None without measurements."""
    if not groups:
        return []
    measured = np.array([group.seconds for group in groups])
    errors = np.abs(np.array(predicted) - measured) / measured
    return [
        Residual(
            what=what,
            measurements=len(groups),
            median=float(np.median(errors)),
            worst=float(errors.max()),
            noise=_noise(groups),
        )
    ]


def _noise(groups: Sequence[Group]) -> float | None:
    """Median of the spreads of groups that have at least ``MANY`` steps; None without such groups."""
    spreads = [group.spread for group in groups if len(group.steps) >= MANY]
    return float(np.median(spreads)) if spreads else None
