"""Into the inbox: submissions, accepted exactly once, and cancellations."""

from __future__ import annotations

import hashlib

import grpc
from redis.asyncio import Redis
from redis.exceptions import RedisError

from albireo import codec
from albireo.keys import Keys
from albireo.logs import FIELD
from albireo.plan import Submission
from albireo.scripts import SUBMIT
from albireo.v1 import inference_pb2 as api
from gateway.refusal import Refusal, unavailable
from gateway.validation import ValidRequest

RETRY_MS = 250
"""When a client may try again after the queue was full."""


def digest_of(request: api.GenerateRequest) -> str:
    """What makes two requests of one id the same: everything the client sent but the id itself."""
    body = api.GenerateRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    return hashlib.blake2b(body.SerializeToString(deterministic=True), digest_size=16).hexdigest()


class Submitter:
    """Writer's end of the inbox."""

    def __init__(self, redis: Redis, keys: Keys, *, max_queue: int, record_seconds: float) -> None:
        self._redis = redis
        self._keys = keys
        self._max_queue = max_queue
        self._record_ms = int(record_seconds * 1000)
        self._script = redis.register_script(SUBMIT)

    async def submit(self, request: ValidRequest, digest: str, timeout_s: float) -> int:
        """Appends the request; returns the epoch that it belongs to. Raises Refusal."""
        entry = codec.submission_to_bytes(
            Submission(request.request_id, request.prompt, request.sampling, request.priority, timeout_s)
        )
        keys = self._keys
        try:
            verdict, epoch = await self._script(
                keys=[
                    keys.request(request.request_id),
                    keys.inbox,
                    keys.waiting,
                    keys.epoch,
                    keys.lease,
                    keys.group,
                    keys.serving,
                ],
                args=[digest, entry, self._max_queue, self._record_ms],
            )
        except RedisError as error:
            raise unavailable(f"Redis: {error}") from error
        if verdict != b"accepted":
            raise _refusal(verdict.decode(), request.request_id)
        return int(epoch)

    async def known(self, request_id: str) -> bool:
        """Whether the id was accepted within the lifetime of its record. Raises Refusal."""
        try:
            return bool(await self._redis.exists(self._keys.request(request_id)))
        except RedisError as error:
            raise unavailable(f"Redis: {error}") from error

    async def cancel(self, request_id: str) -> None:
        """Asks the scheduler to end a request. Raises RedisError."""
        await self._redis.xadd(self._keys.inbox, {FIELD: codec.cancellation_to_bytes(request_id)})


def _refusal(verdict: str, request_id: str) -> Refusal:
    code = grpc.StatusCode
    if verdict == "conflict":
        return Refusal(code.ALREADY_EXISTS, f"request_id: {request_id!r} was used for another request")
    if verdict == "duplicate":
        return Refusal(code.ALREADY_EXISTS, f"request_id: {request_id!r} was accepted before")
    if verdict == "full":
        return Refusal(code.RESOURCE_EXHAUSTED, "the queue is full", retry_ms=RETRY_MS)
    if verdict == "no_group":
        return unavailable("no worker group is alive")
    return unavailable("no scheduler is alive")
