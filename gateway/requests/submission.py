"""Requests into the inbox: submissions, accepted at most once, and cancellations.

The inbox writer and the ``Inference`` service call it, on the event loop.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable

import grpc
from redis.exceptions import RedisError

from albireo.contract import codec
from albireo.contract.plan import Submission, accepted_name
from albireo.contract.tenants import DEFAULT, TenantPolicy
from albireo.runtime.clock import Clock
from albireo.store.redis_errors import Trouble, trouble
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import RETRY_MS, Refusal, exhausted, invalid, unavailable
from gateway.requests.validation import ValidRequest
from gateway.store.interface import GatewayStore, NewRequest, QuotaExceeded, Verdict
from gateway.store.retry import retried


def digest_of(request: api.GenerateRequest) -> str:
    """A hash of all that the client sent but the id: two requests with equal id and digest are one."""
    body = api.GenerateRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    return hashlib.blake2b(body.SerializeToString(deterministic=True), digest_size=16).hexdigest()


def random_suffix() -> str:
    """Distinguishes the names of all acceptances of one request id, those of other tenants too: 64 bits."""
    return secrets.token_hex(8)


class Submitter:
    """Encodes what goes into the inbox, and retries what may be retried."""

    def __init__(
        self,
        store: GatewayStore,
        clock: Clock,
        *,
        max_queue: int,
        record_seconds: float,
        new_suffix: Callable[[], str] = random_suffix,
        policy_of: Callable[[str], TenantPolicy] = lambda _: DEFAULT,
        hits: Counter[str] | None = None,
    ) -> None:
        """``max_queue``: most branches that wait, of several tenants an eighth more.
        ``record_seconds``: how long an accepted id stays in use.
        ``new_suffix`` returns a different suffix of a name in the logs at each call.
        ``policy_of``: a tenant's quotas. ``hits`` counts, by quota, the requests that one has refused."""
        self._store = store
        self._clock = clock
        self._max_queue = max_queue
        self._record_seconds = record_seconds
        self._new_suffix = new_suffix
        self._policy_of = policy_of
        self._hits = Counter[str]() if hits is None else hits

    def new_name(self, request_id: str) -> str:
        """A name in the logs for one acceptance of a request."""
        return accepted_name(request_id, self._new_suffix())

    async def submit(
        self, request: ValidRequest, name: str, digest: str, timeout_s: float, traceparent: str = ""
    ) -> int:
        """Appends the request under ``name``; returns the epoch that it belongs to.

        Raises Refusal; RedisError if the answer was lost, in which case it may have been accepted.
        """
        if request.n > self._max_queue:  # never accepted, so no refusal that suggests a retry
            raise invalid("sampling.n", f"{request.n}; the queue takes {self._max_queue} at most")
        entry = codec.submission_to_bytes(
            Submission(
                request_id=name,
                prompt=request.prompt,
                sampling=request.sampling,
                priority=request.priority,
                timeout_s=timeout_s,
                n=request.n,
                tenant=request.tenant,
                traceparent=traceparent,
                gateway=self._store.gateway_id,
            )
        )
        new = NewRequest(
            request_id=request.record_id,
            digest=digest,
            entry=entry,
            cancellation=codec.cancellation_to_bytes(name),
            branches=request.n,
            max_queue=self._max_queue,
            record_seconds=self._record_seconds,
            tenant=request.tenant,
            policy=self._policy_of(request.tenant),
            tokens=len(request.prompt),
        )
        try:
            verdict, epoch = await self._store.submit(new)
        except QuotaExceeded as exceeded:
            self._hits[exceeded.quota] += 1
            raise _over_quota(exceeded, new) from None
        except RedisError as error:
            if trouble(error) is Trouble.FULL:  # nothing was written
                raise exhausted("Redis is at its memory limit; running requests continue") from error
            await self._store.recover(error)
            raise
        if verdict != "accepted":
            raise _refusal(verdict, request.request_id)
        return epoch

    async def cancel_known(self, record_id: str) -> bool:
        """Asks the scheduler to end a request, by its record's id. False if there is none, if its gateway has
        recorded its end, or if its epoch is over. Raises RedisError; Refusal if there is no scheduler."""
        verdict = await self._store.cancel_known(record_id)
        if verdict == "no_scheduler":
            raise unavailable("no scheduler is alive")
        return verdict == "cancelled"

    async def cancel(self, name: str) -> None:
        """Asks the scheduler to end a request or one branch, by its name in the logs. Raises RedisError."""
        cancellation = codec.cancellation_to_bytes(name)
        await retried(self._store, self._clock, lambda: self._store.cancel(cancellation))

    async def withdraw(self, record_id: str, name: str) -> None:
        """Cancels a submission whose answer was lost, and frees its id. Raises RedisError."""
        cancellation = codec.cancellation_to_bytes(name)
        await retried(self._store, self._clock, lambda: self._store.withdraw(record_id, cancellation))

    async def note_end(self, record_id: str, name: str) -> None:
        """Records that what was accepted under ``name`` has ended. Raises RedisError."""
        cancellation = codec.cancellation_to_bytes(name)
        await retried(self._store, self._clock, lambda: self._store.note_end(record_id, cancellation))


def _over_quota(exceeded: QuotaExceeded, request: NewRequest) -> Refusal:
    """Names the quota, what it allows, and when to come back."""
    policy = request.policy
    most, what = {
        "max_requests": (policy.max_requests, "at once"),
        "queue_share": (request.queue_places, "waiting"),
        "tokens_per_minute": (policy.tokens_per_minute, "a minute"),
    }[exceeded.quota]
    quota = f'quota: {exceeded.quota} of tenant "{request.tenant}" ({most} {what})'
    if what != "a minute" and request.branches > most:  # never accepted, so no refusal that suggests a retry
        return invalid("sampling.n", f"{request.branches}; {quota}")
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, quota, retry_ms=exceeded.retry_ms or RETRY_MS)


def _refusal(verdict: Verdict, request_id: str) -> Refusal:
    code = grpc.StatusCode
    if verdict == "conflict":
        return Refusal(code.ALREADY_EXISTS, f"request_id: {request_id!r} was used for another request")
    if verdict == "duplicate":
        return Refusal(code.ALREADY_EXISTS, f"request_id: {request_id!r} was accepted before")
    if verdict == "full":
        return exhausted("the queue is full")
    if verdict == "no_gateway":
        return unavailable("this gateway has been out of touch with Redis")
    return unavailable("no scheduler is alive")
