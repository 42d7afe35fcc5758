"""``grpc.health.v1``, answered from a plain dict, for a server with threads and for one with an event loop.

Not the library's: its ``set`` holds a lock while it waits for watchers' sends, which never end where the only
thread that could tell of one waits for that lock; in its other one a watcher that leaves takes the news from
the rest. Here a watcher looks for news by itself, so ``set`` waits for nobody.
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
"""How late a watcher may learn of a change."""
_Response = health_pb2.HealthCheckResponse


class Statuses:
    """Whether each service serves. Threads may set and look at the same time."""

    def __init__(self, *, watchers: int) -> None:
        """``watchers``: most calls of Watch at once; more are refused with RESOURCE_EXHAUSTED."""
        self._statuses: dict[str, int] = {}
        self._stopped = threading.Event()
        self._most = watchers
        self._places = threading.BoundedSemaphore(watchers)

    def set(self, service: str, *, serving: bool) -> None:
        if not self._stopped.is_set():
            self._statuses[service] = _Response.SERVING if serving else _Response.NOT_SERVING

    def stop(self) -> None:
        """Nothing serves from now on, and watchers are told so as their last word."""
        self._stopped.set()

    def of(self, service: str) -> int | None:
        """The service's status; None where there is no such service."""
        found = self._statuses.get(service)
        return _Response.NOT_SERVING if found is not None and self._stopped.is_set() else found

    def watched(self, service: str) -> int:
        """The status that a watcher is told: a service may come yet."""
        found = self.of(service)
        return _Response.SERVICE_UNKNOWN if found is None else found

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def pause(self) -> None:
        """Until it is time to look again, or all stops."""
        self._stopped.wait(POLL_SECONDS)

    @contextmanager
    def watcher(self) -> Iterator[str]:
        """A watcher's place until the block's end; yields why there is none, empty where there is."""
        taken = self._places.acquire(blocking=False)
        try:
            yield "" if taken else f"{self._most} clients watch already"
        finally:
            if taken:
                self._places.release()


class HealthServicer(health_pb2_grpc.HealthServicer):
    """For ``grpc.server``. Every watcher keeps one of its threads: have more of these."""

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
            told, last = None, False
            while context.is_active() and not last:
                last = self._statuses.stopped  # before the look, which then sees it
                status = self._statuses.watched(request.service)
                if status != told:
                    told = status
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
            told, last = None, False
            while not last:
                last = self._statuses.stopped
                status = self._statuses.watched(request.service)
                if status != told:
                    told = status
                    yield _Response(status=status)
                if not last:
                    await asyncio.sleep(POLL_SECONDS)
