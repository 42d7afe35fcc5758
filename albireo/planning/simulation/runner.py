"""A rank's device in virtual time: a step is a wait, as long as the cost model says, and has no data.

The stages of the rank call it; see :class:`worker_svc.runner.interface.Runner`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from albireo.contract.plan import GroupShape, Plan
from albireo.planning.simulation.drawn_speed import DrawnSpeed
from albireo.planning.simulation.step_table import Step
from albireo.planning.simulation.store import SimulatedHost
from albireo.store.interface import EntryId
from worker_svc.buffers.arrays import Ints
from worker_svc.cost.speed import StepSpeed, speed_of
from worker_svc.cost.tiers import DescribedTiers
from worker_svc.runner.interface import HostOutput
from worker_svc.runner.simulated_tiers import SimulatedTiers, StepTransfers
from worker_svc.runner.tier_report import TierReport
from worker_svc.sampling.layout import SamplingMode, SamplingPolicy

OUTPUT_ID = 1
"""The token that every row samples. No prompt has it, so no output is taken for another request's prompt."""
VOCAB_SIZE = 16_384
"""Ids mean nothing here; few of them make short entries in the logs."""


@dataclass(frozen=True, slots=True)
class NoModel:
    """What a group announces where there is no checkpoint."""

    architecture: str = "simulated"
    vocab_size: int = VOCAB_SIZE
    eos_ids: frozenset[int] = frozenset()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VirtualStep:
    """A step that is to be waited for."""

    counted: Step
    transfers: StepTransfers


class VirtualOutput:
    """A step that has been waited for."""

    def __init__(self, step: Step, ids: Ints, timestamps: list[int], tiers: TierReport | None) -> None:
        """``ids``: of at least as many rows as the step has."""
        self._step = step
        self._ids = ids
        self._timestamps = timestamps
        self._tiers = tiers

    def to_host(self) -> HostOutput:
        step, ids = self._step, self._ids[: len(self._step.slots)]
        return HostOutput(step.slots, step.incarnations, ids, logprobs={}, tiers=self._tiers)

    def timestamps(self) -> list[int]:
        return self._timestamps


class VirtualRunner:
    """Rank 0 of a group of ``host.cost.tp`` ranks, which all run the same steps at the same time."""

    config = NoModel()
    kv_bytes = 0
    staging_wait = 0.0

    def __init__(
        self,
        host: SimulatedHost,
        shape: GroupShape,
        sampling: SamplingMode,
        speed: DrawnSpeed,
        tiers: DescribedTiers,
    ) -> None:
        self.shape = shape
        self._tiers = SimulatedTiers(tiers)
        self._host = host
        self._speed = speed
        self._ids = np.full(shape.max_seqs, OUTPUT_ID, dtype=np.int64)
        self._policy = SamplingPolicy(sampling, rank=0, size=host.cost.tp)

    @property
    def tier_failures(self) -> dict[tuple[str, str], int]:
        return {}

    def measure(self) -> StepSpeed:
        return speed_of(self._host.cost)

    def reset(self) -> None:
        """A simulation has one epoch, so there are no requests to forget."""
        self._tiers.reset()

    def prepare(self, plan: Plan) -> VirtualStep:
        """Takes T2, during which the copies of KV have begun."""
        host = self._host
        transfers = self._tiers.begin(plan, host.clock.time_ns())
        step = host.table.steps[EntryId(plan.epoch, plan.step)]
        if seconds := step.host.t2:
            host.clock.sleep(seconds)
        return VirtualStep(step, transfers)

    def execute(self, step: VirtualStep) -> VirtualOutput:
        """Takes T3, waits for KV included, and T4."""
        clock, cost, work = self._host.clock, self._host.cost, step.counted.work
        begin = clock.time_ns()
        forward = cost.forward_seconds(work) if work.rows else 0.0
        sampling = 0.0
        if work.samples:
            sampling = cost.sampling_seconds(work, parallel=self._policy.parallel(work.samples))
        factor = self._speed.factor(clock.now())
        forward, sampling = factor * forward, factor * sampling
        whole = work.whole_rows > 0
        computed, tiers = self._tiers.run(step.transfers, begin, round(forward * 1e9), whole=whole)
        waited = tiers.kv_wait_ns / 1e9 if tiers else 0.0
        if seconds := waited + forward + sampling:
            clock.sleep(seconds)
        end = clock.time_ns()
        return VirtualOutput(step.counted, self._ids, [begin, min(computed, end), end], tiers)

    def close(self) -> None:
        """Nothing runs next to the steps."""

    def feed_back(self, output: HostOutput) -> None:
        """The next tokens do not depend on the last ones."""
