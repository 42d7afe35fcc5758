"""Who makes a call: the API key that it brings, and what that permits.

The interceptor finds the caller of each call; the ``Inference`` service asks what it may do. On the event
loop.
"""

from __future__ import annotations

import asyncio
import hmac
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import grpc

from albireo.contract.api_keys import DIGEST_BYTES, FORM, ApiKey, digest_of
from albireo.contract.bounds import MAX_PRIORITY
from albireo.v1 import inference_pb2 as api
from gateway.calls.refusal import Refusal, cut, unavailable

HEADER = "authorization"
SCHEME = "Bearer "
KEEP_SECONDS = 60.0
"""How long keys count after the store was last read. Then all calls are refused until it answers again."""
NO_ID = ""
Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """A key's owner, or anyone who reaches a gateway that needs no key."""

    key_id: str
    tenant: str | None  # None: the one that the request names
    least_priority: int
    greatest_priority: int

    @property
    def scope(self) -> str:
        """Request ids of two scopes are apart: the key's tenant. Without keys all are in one."""
        return self.tenant or ""

    def fill_in(self, request: api.GenerateRequest) -> None:
        """Sets the key's tenant, and the permitted priority that is nearest to 0, where the request has none.

        Raises Refusal (PERMISSION_DENIED) for a tenant or a priority that the key does not permit.
        """
        if self.tenant is None:
            return
        if request.tenant not in ("", self.tenant):
            raise _denied("tenant", f"{cut(request.tenant)!r}; this key is for tenant {self.tenant!r}")
        request.tenant = self.tenant
        least, greatest = self.least_priority, self.greatest_priority
        if not request.HasField("priority"):
            request.priority = min(max(0, least), greatest)
        elif not least <= request.priority <= greatest:
            raise _denied("priority", f"{request.priority}; this key permits {least} to {greatest}")

    def keep_own(self, by_tenant: MutableMapping[str, int]) -> None:
        """Takes out what is another tenant's, their names included."""
        for tenant in list(by_tenant):
            if self.tenant not in (None, tenant):
                del by_tenant[tenant]


ANYONE = Caller(NO_ID, None, -MAX_PRIORITY, MAX_PRIORITY)
"""Who calls a gateway that serves without keys."""


class _Record(NamedTuple):
    """What a key is compared with."""

    digest: bytes
    expires_at: float
    caller: Caller


UNKNOWN = _Record(bytes(DIGEST_BYTES), math.inf, ANYONE)
"""In place of a missing record, so that an unknown id takes as much work as a wrong secret. No key is known
whose digest this is."""
_CALLER: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """Of the call that this task serves. Raises LookupError outside of calls, and in calls for health."""
    return _CALLER.get()


class Keyring:
    """The keys of the deployment in memory, as :class:`gateway.liveness.key_watch.KeyWatch` has read them."""

    def __init__(self, *, is_open: bool, wall: Callable[[], float], now: Callable[[], float]) -> None:
        """``is_open``: whether calls need no key as long as there has never been one. ``wall``: seconds since
        the Unix epoch; ``now``: seconds of a clock that never jumps."""
        self._is_open = is_open
        self._wall = wall
        self._now = now
        self._records: dict[str, _Record] = {}  # by key id
        self._read_at = now()
        self._running: defaultdict[str, set[_RunningCall]] = defaultdict(set)  # calls, by the key's id

    @property
    def is_open(self) -> bool:
        """Whether calls need no key."""
        return self._is_open

    def replace(self, keys: Mapping[str, ApiKey], *, needed: bool) -> None:
        """These are all keys. ``needed``: whether there is any: then calls need one from now on, until the
        gateway starts again."""
        self._is_open = self._is_open and not needed
        self._records = {key_id: _record(key_id, key) for key_id, key in keys.items()}
        self.confirm()

    def confirm(self) -> None:
        """The keys are those of the store now. Ends calls whose keys have been revoked or have expired."""
        self._read_at = self._now()
        wall = self._wall()
        for key_id, calls in self._running.items():
            record = self._records.get(key_id)
            known = record is not None and wall < record.expires_at
            if not (known or (key_id == NO_ID and self._is_open)):
                for call in calls:
                    call.end()

    def caller(self, metadata: Metadata) -> Caller:
        """Who calls with these headers.

        Raises Refusal: UNAUTHENTICATED, with the same message and after the same work whether the key's id is
        unknown, its secret is wrong, or the key has been revoked or has expired.
        """
        if self._is_open:
            return ANYONE
        if self._now() - self._read_at > KEEP_SECONDS:
            raise unavailable(f"API keys cannot be checked: Redis has not answered for {KEEP_SECONDS:g} s")
        text = _bearer(metadata)
        form = FORM.fullmatch(text)
        if form is None:
            raise _unauthenticated()
        record = self._records.get(form[1], UNKNOWN)
        same = hmac.compare_digest(digest_of(text), record.digest)
        if not same & (self._wall() < record.expires_at):  # both are evaluated, always
            raise _unauthenticated()
        return record.caller

    def admit(self, metadata: Metadata) -> _RunningCall:
        """The context in which a task serves a call: finds its caller, for :func:`current_caller`.

        Raises Refusal as ``caller`` does, also when the key is revoked or expires during the call.
        """
        return _RunningCall(self.caller(metadata), self._running)


class _RunningCall:
    """A call while its task serves it. It is ended as ``asyncio.timeout`` ends a block, at a fraction of the
    cost."""

    __slots__ = ("_caller", "_cancelling", "_ended", "_running", "_task")

    def __init__(self, caller: Caller, running: defaultdict[str, set[_RunningCall]]) -> None:
        self._caller = caller
        self._running = running
        self._ended = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is served by a task")
        self._task, self._cancelling = task, task.cancelling()
        self._running[self._caller.key_id].add(self)
        _CALLER.set(self._caller)

    def end(self) -> None:
        """Its key is not valid any more."""
        if not self._ended:
            self._ended = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        calls = self._running[self._caller.key_id]
        calls.discard(self)
        if not calls:
            del self._running[self._caller.key_id]
        # Cancelled by ``end`` alone, and not also by the client or a stop of the server.
        if self._ended and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise _unauthenticated() from None


def _record(key_id: str, key: ApiKey) -> _Record:
    caller = Caller(key_id, key.tenant, key.least_priority, key.greatest_priority)
    return _Record(key.digest, math.inf if key.expires_at is None else key.expires_at, caller)


def _bearer(metadata: Metadata) -> str:
    """The key in the headers of a call; empty where there is none."""
    for name, value in metadata:
        if name == HEADER and isinstance(value, str) and value.startswith(SCHEME):
            return value.removeprefix(SCHEME)
    return ""


def _unauthenticated() -> Refusal:
    return Refusal(
        grpc.StatusCode.UNAUTHENTICATED, "a valid API key is needed (authorization: Bearer alb_...)"
    )


def _denied(field: str, problem: str) -> Refusal:
    return Refusal(grpc.StatusCode.PERMISSION_DENIED, f"{field}: {problem}")
