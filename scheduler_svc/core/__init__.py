"""The scheduler's core: decides what each step of the worker groups runs. Plain data in, plain data out.

The service calls it, from one thread. It has no clock, no I/O and no threads.
"""

from scheduler_svc.core.core import SchedulerCore
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.group_core import GroupCore
from scheduler_svc.core.integrity import IntegrityCheck
from scheduler_svc.core.limits import Limits
from scheduler_svc.core.snapshot import CoreSnapshot
from scheduler_svc.core.speed import Speed
from scheduler_svc.core.stats import MAX_TENANTS, OTHER_TENANTS, CoreStats, GroupStats
from scheduler_svc.core.tally import TenantTally
from scheduler_svc.core.tier_stats import TierStats
from scheduler_svc.core.waiting_end import WaitingEnd
from scheduler_svc.core.window import Window

__all__ = [
    "MAX_TENANTS",
    "OTHER_TENANTS",
    "CoreSnapshot",
    "CoreStats",
    "GroupCore",
    "GroupStats",
    "IntegrityCheck",
    "Limits",
    "ProtocolError",
    "SchedulerCore",
    "Speed",
    "TenantTally",
    "TierStats",
    "WaitingEnd",
    "Window",
]
