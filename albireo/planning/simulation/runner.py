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
from worker_svc.runner.interface import HostOutput
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


class VirtualOutput:
    """A step that has been waited for."""

    def __init__(self, step: Step, ids: Ints, timestamps: list[int]) -> None:
        """``ids``: of at least as many rows as the step has."""
        self._step = step
        self._ids = ids
        self._timestamps = timestamps

    def to_host(self) -> HostOutput:
        step = self._step
        return HostOutput(step.slots, step.incarnations, self._ids[: len(step.slots)], logprobs={})

    def timestamps(self) -> list[int]:
        return self._timestamps


class VirtualRunner:
    """Rank 0 of a group of ``host.cost.tp`` ranks, which all run the same steps at the same time."""

    config = NoModel()
    kv_bytes = 0
    staging_wait = 0.0

    def __init__(
        self, host: SimulatedHost, shape: GroupShape, sampling: SamplingMode, speed: DrawnSpeed
    ) -> None:
        self.shape = shape
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
        """A simulation has one epoch, so there is nothing to forget."""

    def prepare(self, plan: Plan) -> Step:
        """Takes T2."""
        host = self._host
        step = host.table.steps[EntryId(plan.epoch, plan.step)]
        if seconds := step.host.t2:
            host.clock.sleep(seconds)
        return step

    def execute(self, step: Step) -> VirtualOutput:
        """Takes T3 and T4."""
        clock, cost, work = self._host.clock, self._host.cost, step.work
        begin = clock.time_ns()
        forward = cost.forward_seconds(work) if work.rows else 0.0
        sampling = 0.0
        if work.samples:
            sampling = cost.sampling_seconds(work, parallel=self._policy.parallel(work.samples))
        factor = self._speed.factor(clock.now())
        forward, sampling = factor * forward, factor * sampling
        if forward + sampling:
            clock.sleep(forward + sampling)
        end = clock.time_ns()
        return VirtualOutput(step, self._ids, [begin, min(begin + round(forward * 1e9), end), end])

    def feed_back(self, output: HostOutput) -> None:
        """The next tokens do not depend on the last ones."""
