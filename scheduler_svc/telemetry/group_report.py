"""What the scheduler knows of one group at a moment. Load and metrics are made of it.

The led group makes it, a few times a second.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.v1 import control_pb2 as control
from scheduler_svc.core import GroupStats


@dataclass(frozen=True, slots=True)
class GroupReport:
    """One group that serves."""

    name: str
    incarnation: str
    device: str
    tp: int
    stats: GroupStats
    look_ahead: int  # plans
    beat_age: float  # seconds since the oldest of its ranks' last heartbeats
    ranks: list[control.Rank]
