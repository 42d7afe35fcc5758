"""Cost models whose times are simple numbers, so that a test can compute a run by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

from worker_svc.cost.device import STEADY, Variation
from worker_svc.cost.interface import HostCost
from worker_svc.cost.work import StepWork


@dataclass
class Constant:
    """Each part of a step takes the same time, whatever the step computes. Keeps all works."""

    tp: int = 1
    t3: float = 0.018
    t4: float = 0.002
    t4_parallel: float = 0.001
    host_cost: HostCost = field(default_factory=HostCost)
    forwards: list[StepWork] = field(default_factory=list)
    name: str = "constant"
    variation: Variation = STEADY

    def forward_seconds(self, work: StepWork) -> float:
        self.forwards.append(work)
        return self.t3

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        return self.t4_parallel if parallel else self.t4

    def host(self, work: StepWork) -> HostCost:
        return self.host_cost
