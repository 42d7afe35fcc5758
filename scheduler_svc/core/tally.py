"""What became of one tenant's requests since it was last asked.

The request table counts; the service reports it to the store, for the quotas.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TenantTally:
    """Counts of branches and tokens of one tenant."""

    departed: int = 0  # admitted for the first time, or ending before they ever were
    ended: int = 0
    outputs: int = 0  # tokens that have settled
    service: float = 0.0  # that it was charged for, in weighted tokens

    def add(self, other: TenantTally) -> None:
        """Adds a later tally."""
        self.departed += other.departed
        self.ended += other.ended
        self.outputs += other.outputs
        self.service += other.service
