"""A core that follows another one by the logs."""

from __future__ import annotations

from dataclasses import replace

from albireo.contract import codec
from albireo.contract.plan import GroupShape, Plan, StepResult, Submission
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import CoreSnapshot, Limits, SchedulerCore


def from_log(plan: Plan) -> Plan:
    """The plan as a reader of the plan log gets it."""
    entry = log.PlanEntry.FromString(codec.plan_to_bytes(plan))
    return codec.plan_from_proto(plan.epoch, plan.step, entry.plan)


def folded(core: SchedulerCore) -> CoreSnapshot:
    """What a core's state is by the logs, without the ends that it has not announced."""
    return replace(core.snapshot(), ending={}, refused=())


class Follower:
    """A second core that gets the same submissions, plans and results, and nothing else by itself."""

    def __init__(self, shape: GroupShape, limits: Limits, *, epoch: int, salt: bytes) -> None:
        self.core = SchedulerCore(shape, limits, epoch=epoch, salt=salt)

    def submit(self, submission: Submission, now: float) -> None:
        self.core.submit(submission, now)

    def refuse(self, submission: Submission) -> None:
        self.core.refuse(submission)

    def apply(self, plan: Plan, leader: SchedulerCore) -> None:
        """Applies a plan that ``leader`` has just made."""
        left = leader.snapshot()
        assert not left.ending, "an end that the plan does not announce"
        assert not left.refused, "a refusal that the plan does not announce"
        self.core.apply(from_log(plan))

    def settle(self, result: StepResult) -> None:
        self.core.settle(result)

    def check(self, leader: SchedulerCore) -> None:
        """Its state is that of the core that made the plans."""
        assert not self.core.check_integrity()
        assert folded(self.core) == folded(leader)
        if self.core.snapshot().ending == leader.snapshot().ending:
            assert self.core.stats() == leader.stats()
