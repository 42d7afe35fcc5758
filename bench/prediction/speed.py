"""How fast the machine is now, as a share of when its device file was calibrated.

The speed of a shared machine changes within minutes by more than a prediction may be off. So a load of the
calibration runs before and after each workload, and the workload is predicted at the speed that it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albireo.planning.calibration.loads import mixed_lengths
from worker_svc.cost.device import STEADY, Variation
from worker_svc.cost.interface import CostModel, HostCost
from worker_svc.cost.physical import PhysicalCost
from worker_svc.cost.work import StepWork

REFERENCE = mixed_lengths(16, 24, longest=384)


@dataclass(frozen=True, slots=True)
class AtSpeed:
    """The cost model of a machine that is ``speed`` times as fast as the calibrated one."""

    cost: CostModel
    speed: float = 1.0
    variation: Variation = STEADY

    @property
    def name(self) -> str:
        return self.cost.name

    @property
    def tp(self) -> int:
        return self.cost.tp

    @property
    def launch_seconds(self) -> float:
        """The part of T3 that real ranks spend before T3's timestamps."""
        return (
            self.cost.efficiency.step_us * 1e-6 / self.speed if isinstance(self.cost, PhysicalCost) else 0.0
        )

    def forward_seconds(self, work: StepWork) -> float:
        return self.cost.forward_seconds(work) / self.speed

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        return self.cost.sampling_seconds(work, parallel=parallel) / self.speed

    def host(self, work: StepWork) -> HostCost:
        host = self.cost.host(work)
        return HostCost(host.t1 / self.speed, host.t2 / self.speed, host.t5 / self.speed)


def speed_shown(calibrated: Mapping[str, Any], measured: Mapping[str, Any]) -> float:
    """By the summaries of a simulation and of a run of the same workload: the ratio of the time in steps."""
    return _in_steps(calibrated) / _in_steps(measured)


def _in_steps(summary: Mapping[str, Any]) -> float:
    steps = summary["steps"]
    return float(steps["steps"] * (steps["t3"] + steps["t4"]))
