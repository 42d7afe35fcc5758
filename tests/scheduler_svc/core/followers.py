"""A core that follows another one by the logs."""

from __future__ import annotations

from dataclasses import replace

from albireo.contract import codec
from albireo.contract.plan import Plan
from albireo.v1 import log_pb2 as log
from scheduler_svc.core import CoreSnapshot, SchedulerCore


def from_log(plan: Plan) -> Plan:
    """The plan as a reader of the plan log gets it."""
    entry = log.PlanEntry.FromString(codec.plan_to_bytes(plan))
    return codec.plan_from_proto(plan.epoch, plan.step, entry.plan)


def folded(core: SchedulerCore) -> CoreSnapshot:
    """What a core's state is by the logs, without the ends that it has not announced."""
    return replace(core.snapshot(), ending={}, refused=())


def check_follower(follower: SchedulerCore, leader: SchedulerCore) -> None:
    """Its state is that of the core that makes the plans."""
    assert not follower.check_integrity()
    assert folded(follower) == folded(leader)
    if follower.snapshot().ending == leader.snapshot().ending:
        waiting = leader.stats(), follower.stats()
        assert waiting[0] == waiting[1]
