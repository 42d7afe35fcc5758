"""Into the inbox: submissions, accepted exactly once, and cancellations."""

from __future__ import annotations

import hashlib
import secrets

import grpc
from redis.asyncio import Redis
from redis.exceptions import RedisError

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import Submission, accepted_name
from albireo.store.redis_errors import Trouble, trouble
from albireo.store.scripts import CANCEL, DROP, END, SUBMIT, WITHDRAW
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal, exhausted, invalid, unavailable
from gateway.requests.validation import ValidRequest
from gateway.store.heartbeat import Heartbeat
from gateway.store.redis_retry import reconnect, ride_out


def digest_of(request: api.GenerateRequest) -> str:
    """What makes two requests of one id the same: everything the client sent but the id itself."""
    body = api.GenerateRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    return hashlib.blake2b(body.SerializeToString(deterministic=True), digest_size=16).hexdigest()


def name_of(request_id: str) -> str:
    """A name in the logs for one acceptance of a request."""
    return accepted_name(request_id, secrets.token_hex(4))


class Submitter:
    """Writer's end of the inbox."""

    def __init__(
        self, redis: Redis, keys: Keys, heartbeat: Heartbeat, *, max_queue: int, record_seconds: float
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._heartbeat = heartbeat
        self._max_queue = max_queue
        self._record_ms = int(record_seconds * 1000)
        self._submit = redis.register_script(SUBMIT)
        self._end = redis.register_script(END)
        self._cancel = redis.register_script(CANCEL)
        self._drop = redis.register_script(DROP)
        self._withdraw = redis.register_script(WITHDRAW)

    async def submit(
        self, request: ValidRequest, name: str, digest: str, timeout_s: float, traceparent: str = ""
    ) -> int:
        """Appends the request under ``name``; returns the epoch that it belongs to.

        Raises Refusal, and RedisError where it may have been accepted nevertheless.
        """
        if request.n > self._max_queue:  # it would be told to try again for ever
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
                gateway=self._heartbeat.gateway_id,
            )
        )
        try:
            verdict, epoch = await self._submit(
                keys=self._submission_keys(request.request_id),
                args=[
                    digest,
                    entry,
                    self._max_queue,
                    self._record_ms,
                    request.n,
                    self._heartbeat.gateway_id,
                    codec.cancellation_to_bytes(name),
                    self._keys.gateway(""),
                ],
            )
        except RedisError as error:
            if trouble(error) is Trouble.FULL:  # nothing was written
                raise exhausted("Redis is at its memory limit; what runs goes on") from error
            await reconnect(self._redis, error)
            raise
        if verdict != b"accepted":
            raise _refusal(verdict.decode(), request.request_id)
        return int(epoch)

    async def cancel_known(self, request_id: str) -> bool:
        """Asks the scheduler to end a request. False where none is known, or it is known to have ended:
        its gateway has noted that, or its epoch is over. Raises RedisError, and Refusal without scheduler."""
        keys = self._keys
        found = await self._cancel(keys=[keys.inbox, keys.lease, keys.epoch, keys.request(request_id)])
        if found < 0:
            raise unavailable("no scheduler is alive")
        return bool(found)

    async def cancel(self, name: str) -> None:
        """Asks the scheduler to end a request, or one branch of it, by its name there. Raises RedisError."""
        keys, arguments = [self._keys.inbox, self._keys.lease], [codec.cancellation_to_bytes(name)]
        await ride_out(self._redis, lambda: self._drop(keys=keys, args=arguments))

    async def withdraw(self, request_id: str, name: str) -> None:
        """Of a submission whose answer was lost nothing shall be left. Raises RedisError."""
        keys = [self._keys.inbox, self._keys.lease, self._keys.request(request_id)]
        arguments = [codec.cancellation_to_bytes(name)]
        await ride_out(self._redis, lambda: self._withdraw(keys=keys, args=arguments))

    async def note_end(self, request_id: str, name: str) -> None:
        """There is nothing more to cancel of what was accepted under ``name``. Raises RedisError."""
        keys, arguments = [self._keys.request(request_id)], [codec.cancellation_to_bytes(name)]
        await ride_out(self._redis, lambda: self._end(keys=keys, args=arguments))

    def _submission_keys(self, request_id: str) -> list[str]:
        keys = self._keys
        return [
            keys.request(request_id),
            keys.inbox,
            keys.waiting,
            keys.epoch,
            keys.lease,
            keys.group,
            keys.serving,
            self._heartbeat.key,
        ]


def _refusal(verdict: str, request_id: str) -> Refusal:
    code = grpc.StatusCode
    if verdict == "conflict":
        return Refusal(code.ALREADY_EXISTS, f"request_id: {request_id!r} was used for another request")
    if verdict == "duplicate":
        return Refusal(code.ALREADY_EXISTS, f"request_id: {request_id!r} was accepted before")
    if verdict == "full":
        return exhausted("the queue is full")
    if verdict == "no_gateway":
        return unavailable("this gateway has been out of touch with Redis")
    if verdict == "no_group":
        return unavailable("no worker group is alive")
    return unavailable("no scheduler is alive")
