"""The interface of a cost model. Simulated ranks and the planner ask it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from worker_svc.cost.device import Variation
from worker_svc.cost.work import StepWork


@dataclass(frozen=True, slots=True)
class HostCost:
    """What the CPUs do for one step, in seconds: whole, whether the device waits for it or not."""

    t1: float = 0.0  # scheduler: from what a plan is based on to the plan in the log
    t2: float = 0.0  # every rank: from the plan to staged tensors
    t5: float = 0.0  # rank 0: from the ids on the host to the result in the log


class CostModel(Protocol):
    """One group: a model on ``tp`` devices of one kind. Durations are in seconds, and means of like steps."""

    @property
    def name(self) -> str:
        """For labels: whatever is computed with it is simulated."""
        ...

    @property
    def tp(self) -> int: ...

    @property
    def variation(self) -> Variation:
        """How much T3 and T4 of like steps differ. Simulations in virtual time draw from it."""
        ...

    def forward_seconds(self, work: StepWork) -> float:
        """T3. 0 for a step without rows."""
        ...

    def sampling_seconds(self, work: StepWork, *, parallel: bool) -> float:
        """T4. ``parallel``: each rank samples its share of the rows; otherwise rank 0 samples all."""
        ...

    def host(self, work: StepWork) -> HostCost:
        """T1, T2 and T5, where the host is simulated too. In real time the host's work is real, and nothing
        asks for it."""
        ...
