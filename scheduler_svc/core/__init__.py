"""The scheduler's core: decides what each step of a worker group runs. Plain data in, plain data out.

The epoch calls it, from the service's thread. It has no clock, no I/O and no threads.
"""

from scheduler_svc.core.core import SchedulerCore
from scheduler_svc.core.errors import ProtocolError
from scheduler_svc.core.limits import Limits
from scheduler_svc.core.snapshot import CoreSnapshot
from scheduler_svc.core.stats import MAX_TENANTS, OTHER_TENANTS, CoreStats
from scheduler_svc.core.window import Window

__all__ = [
    "MAX_TENANTS",
    "OTHER_TENANTS",
    "CoreSnapshot",
    "CoreStats",
    "Limits",
    "ProtocolError",
    "SchedulerCore",
    "Window",
]
