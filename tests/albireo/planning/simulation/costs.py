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


@dataclass
class Linear:
    """Times that are linear in the counts of a step; keeps what it was asked, and what it answered."""

    tp: int
    scale: float
    host_scale: float
    works: list[StepWork] = field(default_factory=list)
    forward: float = 0.0
    sampling: float = 0.0
    name: str = "linear"
    variation: Variation = STEADY

    def forget(self) -> None:
        """What it was asked so far was no step: a group announces how fast it is."""
        self.works.clear()
        self.forward = self.sampling = 0.0

    def forward_seconds(self, work: StepWork) -> float:
        self.works.append(work)
        seconds = self.scale * (5e-3 + 1e-5 * work.decodes + 2e-5 * work.prefill + 1e-8 * work.context)
        seconds += self.scale * 1e-8 * work.prefill_pairs
        self.forward += seconds
        return seconds

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        seconds = self.scale * 1e-5 * (work.greedy + 2 * work.drawn + 4 * work.penalized)
        seconds /= self.tp if parallel else 1
        self.sampling += seconds
        return seconds

    def host(self, work: StepWork) -> HostCost:
        rows = 1e-6 * work.rows
        return HostCost(*(self.host_scale * part for part in (2e-3 + rows, 1e-3 + rows, 1e-3)))
