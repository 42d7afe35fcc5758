"""Policies of tenants: the share of each in the queue, and its quotas. Plain data.

``albireo tenants`` writes them; gateways read the quotas, the scheduler the weights.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

MAX_WEIGHT: Final = 1000.0
MIN_WEIGHT: Final = 0.001
MAX_QUOTA: Final = 2**40


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What one tenant may use of each model. A tenant without a policy has this one's defaults."""

    weight: float = 1.0  # its share of the service where tenants compete, relative to those of the others
    max_requests: int = 0  # branches that wait or run at once; 0: no quota
    tokens_per_minute: int = (
        0  # of prompts and outputs; what is not used in a minute is not kept. 0: no quota
    )
    queue_share: float = 1.0  # of the places of the queue, above 0 to 1

    def __post_init__(self) -> None:
        """Raises ValueError that names the field."""
        if not MIN_WEIGHT <= self.weight <= MAX_WEIGHT:
            raise ValueError(f"weight: {self.weight:g} is not {MIN_WEIGHT:g} to {MAX_WEIGHT:g}")
        for name in ("max_requests", "tokens_per_minute"):
            if not 0 <= getattr(self, name) <= MAX_QUOTA:
                raise ValueError(f"{name}: {getattr(self, name)} is not 0 to {MAX_QUOTA}")
        if not 0 < self.queue_share <= 1:
            raise ValueError(f"queue_share: {self.queue_share:g} is not above 0 and at most 1")


DEFAULT: Final = TenantPolicy()
_FIELDS: Final = {field.name: type(getattr(DEFAULT, field.name)) for field in fields(TenantPolicy)}


def to_bytes(policy: TenantPolicy) -> bytes:
    """As it is stored: a JSON object."""
    return json.dumps(asdict(policy)).encode()


def from_bytes(data: bytes) -> TenantPolicy:
    """Fields that are not there have their defaults. Raises ValueError for what is no policy."""
    try:
        found: Any = json.loads(data)
    except RecursionError as error:
        raise ValueError(f"no policy of a tenant: {error}") from None
    if not isinstance(found, dict) or not set(found) <= set(_FIELDS):
        raise ValueError(f"{found!r} is no policy of a tenant")
    try:
        return TenantPolicy(**{name: _FIELDS[name](value) for name, value in found.items()})
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{found!r} is no policy of a tenant: {error}") from None
