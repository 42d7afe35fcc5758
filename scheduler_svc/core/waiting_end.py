"""The end of a request that waits without an occupancy of a slot.

The core hands it out, for the next notice to gateways; a core that follows takes it in.
"""

from __future__ import annotations

from typing import NamedTuple

from albireo.contract.plan import Finish


class WaitingEnd(NamedTuple):
    """A request ended by the scheduler's decision while it waited."""

    request_id: str
    reason: Finish
    num_outputs: int  # tokens that it had brought, in results of any group
