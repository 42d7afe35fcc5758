"""A step between its plan and its result."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler_svc.core.occupancy import Occupancy


@dataclass(slots=True)
class StepInFlight:
    """A step that is published and not settled, or that the plan in the making describes."""

    step: int
    chunks: list[tuple[Occupancy, int]] = field(default_factory=list)  # with ``scheduled`` after the chunk
    released: list[Occupancy] = field(default_factory=list)  # free when this step settles: it was their last
