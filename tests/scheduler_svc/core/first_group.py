"""A world of groups seen as if it had only its first one: most tests have no more."""

from __future__ import annotations

from collections import deque

from albireo.contract.plan import Ended, GroupShape, Plan, StepResult
from scheduler_svc.core import WaitingEnd

from .auditor import Auditor
from .group_world import GroupWorld
from .worker_model import Worker


class FirstGroup:
    """What the first of ``groups`` has."""

    groups: dict[str, GroupWorld]
    notices: list[WaitingEnd]

    @property
    def group(self) -> GroupWorld:
        return next(iter(self.groups.values()))

    @property
    def shape(self) -> GroupShape:
        return self.group.shape

    @property
    def worker(self) -> Worker:
        return self.group.worker

    @property
    def auditor(self) -> Auditor:
        return self.group.auditor

    @property
    def plans(self) -> list[Plan]:
        return self.group.plans

    @property
    def published(self) -> deque[Plan]:
        return self.group.published

    @property
    def unsettled(self) -> deque[StepResult]:
        return self.group.unsettled

    @property
    def settled(self) -> list[StepResult]:
        return self.group.settled

    def ended(self) -> list[Ended]:
        """All ends by the scheduler's decision: those of notices, then those of the group's plans."""
        notices = [Ended(end.request_id, end.reason) for end in self.notices]
        return notices + [end for plan in self.plans for end in plan.ended]
