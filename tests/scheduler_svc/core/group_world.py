"""One group with a worker, a reader of its results and an auditor around it, moved by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from albireo.contract.plan import GroupShape, Plan, StepResult
from scheduler_svc.core import GroupCore

from .auditor import Auditor
from .followers import from_log
from .reader import read_result
from .story import Story
from .tier_model import Frame, Stored
from .worker_model import Worker


class GroupWorld:
    """A life of one group. Plans are published, run and settled one call at a time, in that order."""

    def __init__(
        self,
        core: GroupCore,
        follower: GroupCore | None,
        stories: Mapping[str, Story],
        frames: Mapping[Frame, Stored],
    ) -> None:
        """``frames``: what the tiers hold at first."""
        self.core, self.follower = core, follower
        self.shape: GroupShape = core.shape
        self.worker = Worker(self.shape, frames)
        self.window = core.limits.max_in_flight
        self.auditor = Auditor(self.shape, core.limits, stories, frames)
        self.published: deque[Plan] = deque()  # not run yet
        self.unsettled: deque[StepResult] = deque()  # run, not settled
        self.settled: list[StepResult] = []
        self.plans: list[Plan] = []
        self._stories = stories

    @property
    def in_flight(self) -> int:
        return len(self.published) + len(self.unsettled)

    def set_window(self, plans: int) -> None:
        """What is in flight stays there: a smaller window holds back the next plans only."""
        self.core.set_window(plans)
        self.window = plans

    def promote(self) -> None:
        assert self.follower
        self.core, self.follower = self.follower, self.core
        self.core.set_window(self.window)

    def plan(self, now: float) -> Plan | None:
        in_flight, preempted = self.in_flight, self.core.stats().preemptions
        touched = self.core.touched
        plan = self.core.plan(now)
        if plan is None:
            assert not self.core.touched
            return None
        assert touched, "a plan of a group that says it has nothing to do"
        if plan.paused or self.core.stats().preemptions > preempted:
            assert not plan.admissions, "an admission while blocks are short"
        assert in_flight < self.window
        self.auditor.audit(plan, in_flight=in_flight, settled=len(self.settled), now=now)
        if self.follower:
            self.follower.apply(from_log(plan))
        self.plans.append(plan)
        self.published.append(plan)
        return plan

    def read(self) -> None:
        """The worker's input stage has read all that is published."""
        for plan in self.published:
            self.worker.read(plan)

    def run(self) -> StepResult:
        """The worker runs the oldest plan, and the result is in the log."""
        plan = self.published.popleft()
        result = self.worker.run(plan)
        read_result(result, plan, stories=self._stories, by_incarnation=self.auditor.by_incarnation)
        self.unsettled.append(result)
        return result

    def settle(self) -> StepResult:
        result = self.unsettled.popleft()
        self.core.settle(result)
        if self.follower:
            self.follower.settle(result)
        self.settled.append(result)
        self.auditor.settled(result)
        for incarnation, finish in zip(result.incarnations, result.finishes, strict=True):
            if finish:
                self._stories[self.auditor.by_incarnation[incarnation]].settled_final = True
        return result
