"""``grpc.health.v1``, answered from a plain dict, for a server with threads and for one with an event loop.

Not the library's servicers: ``set`` of the one with threads holds a lock while it waits for watchers' sends,
and deadlocks where the thread that would end such a wait needs that lock; in the one with an event loop, a
watcher that leaves can take a change away from the others. Here each watcher polls, so ``set`` never waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

POLL_SECONDS = 0.25
"""Between two polls of a watcher: it learns of a change this late at most."""
_Response = health_pb2.HealthCheckResponse


class Statuses:
    """Whether each service serves. Safe to use from several threads."""

    def __init__(self, *, watchers: int) -> None:
        """``watchers``: most calls of Watch at once; more are refused with RESOURCE_EXHAUSTED."""
        self._statuses: dict[str, int] = {}
        self._stopped = threading.Event()
        self._max_watchers = watchers
        self._free_watchers = threading.BoundedSemaphore(watchers)

    def set(self, service: str, *, serving: bool) -> None:
        if not self._stopped.is_set():
            self._statuses[service] = _Response.SERVING if serving else _Response.NOT_SERVING

    def remove(self, service: str) -> None:
        """There is no such service any more."""
        self._statuses.pop(service, None)

    def stop(self) -> None:
        """All services are NOT_SERVING from now on, which is the last message to watchers."""
        self._stopped.set()

    def of(self, service: str) -> int | None:
        """The service's status; None where there is no such service."""
        found = self._statuses.get(service)
        return _Response.NOT_SERVING if found is not None and self._stopped.is_set() else found

    def watched(self, service: str) -> int:
        """The status for a watcher: SERVICE_UNKNOWN for a service that does not exist yet."""
        found = self.of(service)
        return _Response.SERVICE_UNKNOWN if found is None else found

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def pause(self) -> None:
        """Waits for the next poll, or for ``stop``."""
        self._stopped.wait(POLL_SECONDS)

    @contextmanager
    def watcher(self) -> Iterator[str]:
        """Counts one watcher until the block's end; yields why it is refused, empty where it is not."""
        taken = self._free_watchers.acquire(blocking=False)
        try:
            yield "" if taken else f"{self._max_watchers} clients watch already"
        finally:
            if taken:
                self._free_watchers.release()


class HealthServicer(health_pb2_grpc.HealthServicer):
    """For ``grpc.server``. A watcher occupies one of its threads: it needs more threads than watchers."""

    def __init__(self, statuses: Statuses) -> None:
        self._statuses = statuses

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        status = self._statuses.of(request.service)
        if status is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return _Response(status=status)

    def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        with self._statuses.watcher() as problem:
            if problem:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, problem)
            sent, last = None, False
            while context.is_active() and not last:
                last = self._statuses.stopped  # read before the status, which then includes it
                status = self._statuses.watched(request.service)
                if status != sent:
                    sent = status
                    yield _Response(status=status)
                self._statuses.pause()


class AsyncHealthServicer(health_pb2_grpc.HealthServicer):
    """For ``grpc.aio.server``."""

    def __init__(self, statuses: Statuses) -> None:
        self._statuses = statuses

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        status = self._statuses.of(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return _Response(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        with self._statuses.watcher() as problem:
            if problem:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, problem)
            sent, last = None, False
            while not last:
                last = self._statuses.stopped
                status = self._statuses.watched(request.service)
                if status != sent:
                    sent = status
                    yield _Response(status=status)
                if not last:
                    await asyncio.sleep(POLL_SECONDS)
