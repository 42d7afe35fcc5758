"""A world of groups seen as if it had only its first one: most tests have no more."""

from __future__ import annotations

from collections import deque

from albireo.contract.plan import GroupShape, Plan, StepResult

from .auditor import Auditor
from .group_world import GroupWorld
from .worker_model import Worker


class FirstGroup:
    """What the first of ``groups`` has."""

    groups: dict[str, GroupWorld]

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
