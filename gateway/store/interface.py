"""What a gateway needs of the store that all tiers share: the inbox, the results, who is alive.

All calls are made on the gateway's event loop. Two implementations:
:class:`gateway.store.redis_store.RedisGatewayStore`, and in virtual time
:class:`gateway.store.memory_store.MemoryGatewayStore`. ``tests/gateway/store`` holds both to one contract.
Scheduler and workers use the same keys by :mod:`albireo.store.interface`.

Errors of a store that cannot answer are redis-py's ``RedisError``. The store itself retries nothing: an
operation whose answer was lost may have been carried out. Callers retry by :mod:`gateway.store.retry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from redis.exceptions import RedisError

from albireo.contract.plan import DEFAULT_TENANT
from albireo.contract.tenants import DEFAULT, TenantPolicy
from albireo.store.interface import EntryId, LogEntry

Verdict = Literal["accepted", "conflict", "duplicate", "full", "no_gateway", "no_scheduler"]
"""What became of a submission; all but the first leave nothing behind.

``conflict``: the id belongs to a request with another digest. ``duplicate``: to one with the same digest,
accepted in this epoch. ``full``: the queue would exceed its bound. ``no_gateway``: this gateway's heartbeat
has expired. ``no_scheduler``: none holds the lease. Where no worker group is there, requests wait for one.
"""
CancelVerdict = Literal["cancelled", "unknown", "no_scheduler"]
CANCEL_VERDICTS: dict[int, CancelVerdict] = {1: "cancelled", 0: "unknown", -1: "no_scheduler"}
"""What the answers of the script CANCEL mean."""


class QuotaExceeded(Exception):
    """A quota of the tenant does not allow a submission now; nothing was left behind."""

    def __init__(self, quota: str, retry_ms: int) -> None:
        """``quota``: its field in TenantPolicy. ``retry_ms``: milliseconds until it would; 0: not known."""
        super().__init__(quota)
        self.quota = quota
        self.retry_ms = retry_ms


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request for the inbox, with what decides whether it is accepted."""

    request_id: str  # the client's
    digest: str  # of all that the client sent but the id
    entry: bytes  # the submission, for the inbox
    cancellation: bytes  # what is appended to the inbox to cancel it
    branches: int  # how many places of the queue it takes
    max_queue: int  # most branches that wait, these included; of several tenants an eighth more
    record_seconds: float  # how long the id stays taken
    tenant: str = DEFAULT_TENANT
    policy: TenantPolicy = DEFAULT  # of the tenant
    tokens: int = 0  # that count for its quota from the acceptance on: those of the prompt

    @property
    def queue_places(self) -> int:
        """Most branches of the tenant that wait; 0: as many as of all."""
        share = self.policy.queue_share
        return max(1, int(share * self.max_queue)) if share < 1 else 0


class Liveness(NamedTuple):
    """Who is alive, as of one round trip."""

    heartbeat_kept: bool  # whether this gateway's heartbeat had not expired before it was renewed
    leased: bool  # whether a scheduler holds its lease
    groups: int  # that the scheduler of the current epoch leads
    model: bytes | None  # the ``ServedModel``; None where no group has ever joined
    epoch: int  # the last that was opened; 0 where there has been none
    load: bytes | None  # the scheduler's ``Load``; None where none publishes one


@dataclass(frozen=True, slots=True)
class Position:
    """How far a gateway has read: ids of the last entries of the notices, and of each group's results."""

    notices: EntryId
    groups: dict[str, EntryId]  # by incarnation


class Entries(NamedTuple):
    """What one read has found. Notices are not ahead of results: all that was in a group's results when a
    notice was appended has been read with it, or before."""

    results: dict[str, list[LogEntry]]  # by incarnation; a group without any is left out
    notices: list[LogEntry]


class GatewayStore(Protocol):
    """The keys of one model, as the gateway ``gateway_id`` uses them."""

    @property
    def gateway_id(self) -> str:
        """Names this gateway's heartbeat, and the requests that it follows."""
        ...

    async def position(self) -> Position:
        """The ends of the notices and of the results of all groups that serve; ``0-0`` of an empty log.

        A group whose opening is in the notices behind this position may be among them.
        """
        ...

    async def read(self, after: Position, wait: float) -> Entries:
        """All entries behind ``after``, of each log oldest first; waits up to ``wait`` seconds for the first
        of any. The payload of an entry that is not of our form is empty."""
        ...

    async def submit(self, request: NewRequest) -> tuple[Verdict, int]:
        """Accepts a request into the inbox at most once; returns what became of it and the current epoch.

        The id of one whose gateway is gone before it ended is free; what was left of it is cancelled first.
        Raises QuotaExceeded.
        """
        ...

    async def cancel_known(self, request_id: str) -> CancelVerdict:
        """Cancels the accepted request of this id. ``unknown``: there is none, or its end has been noted, or
        its epoch is over."""
        ...

    async def cancel(self, cancellation: bytes) -> None:
        """Appends a cancellation to the inbox if there is a scheduler. Idempotent for the scheduler."""
        ...

    async def withdraw(self, request_id: str, cancellation: bytes) -> None:
        """Cancels as ``cancel`` does, and frees the id if it was accepted with this cancellation."""
        ...

    async def note_end(self, request_id: str, cancellation: bytes) -> None:
        """Records that the request accepted with this cancellation has ended. Idempotent. The id stays
        taken."""
        ...

    async def start_heartbeat(self, ttl: float) -> None:
        """Others take this gateway for dead ``ttl`` seconds after its last heartbeat."""
        ...

    async def check(self, ttl: float) -> Liveness:
        """Renews the heartbeat, then reads who is alive, in one round trip.

        An error of the heartbeat is raised before all others. Then nothing of the rest counts: where nothing
        can be written, a lease expires although its owner is alive.
        """
        ...

    async def stop_heartbeat(self) -> None:
        """Removes the heartbeat: this gateway follows no requests any more."""
        ...

    async def load(self) -> bytes | None:
        """The scheduler's ``Load``; None where none announces one."""
        ...

    async def gpus(self, ranks: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """The ``Gpu`` of each of these ranks, by incarnation and number; None of one that announces none."""
        ...

    async def recover(self, error: RedisError) -> None:
        """Prepares for the next attempt after an error: gives up connections that may lead to another server
        than the one that takes writes now."""
        ...

    async def close(self) -> None:
        """Gives the connections back."""
        ...
