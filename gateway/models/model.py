"""One model that a gateway serves: its checkpoint, and its backends, one in each cell.

The services ask it for a backend for each request. On the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError

from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from gateway.calls.refusal import Refusal
from gateway.models.backend import Backend, Shared
from gateway.models.cell import Cell
from gateway.models.checkpoint import Checkpoint
from gateway.models.load import joined
from gateway.streams.failures import Failure
from gateway.telemetry.step_feed import StepFeed


class Model:
    """``start`` and ``run``, then ``stop``."""

    def __init__(
        self,
        shared: Shared,
        cells: Sequence[Cell],
        name: str,
        checkpoint: Checkpoint,
        on_alive: Callable[[str, bool], None],
    ) -> None:
        """``on_alive`` is called with the name, and whether any backend serves, at every change."""
        self.name = name
        self.checkpoint = checkpoint
        self.steps = StepFeed(shared.telemetry)
        self.backends = [
            Backend(shared, cell, name, checkpoint, self.steps, self._on_backend) for cell in cells
        ]
        self.alive = False
        """Whether any backend serves."""
        self._on_alive = on_alive

    @property
    def info(self) -> log.ServedModel | None:
        """What the groups of a backend, if possible one that serves, announce; None where no group ever
        joined."""
        return self._best()[0].served.info

    @property
    def simulated(self) -> bool:
        """Whether those groups run a simulated device."""
        return self._best()[0].served.simulated

    def backend_for(self, record_id: str = "") -> Backend:
        """Where the next request goes: of the backends that serve, to that with the fewest requests a slot.

        ``record_id``: of a request whose client has chosen its id: while the same cells have a scheduler it
        always goes to the same one, since a second submission has to find the first. By rendezvous hashing
        (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998): where a cell comes
        or goes, only the ids that it has go elsewhere.
        """
        if not record_id:
            return min(self._best(), key=lambda backend: (backend.load.per_slot, backend.load.requests))
        for backend in self.backends:
            if record_id in backend.router:
                return backend
        return max(self._able(), key=lambda backend: _weight(backend.cell.name, record_id))

    async def load(self) -> control.Load | None:
        """Of the cells that have a scheduler; None where none publishes any.

        Raises RedisError where none answers, DecodeError for one that cannot be read.
        """
        loading = [backend.load_of() for backend in self._able()]
        found = await asyncio.gather(*loading, return_exceptions=True)
        loads = [load for load in found if isinstance(load, control.Load)]
        for error in found:
            if isinstance(error, BaseException) and (not loads or not isinstance(error, RedisError)):
                raise error
        return joined(loads) if loads else None

    async def cancel(self, record_id: str) -> bool:
        """Ends the request of a record in whichever cell it is; False if it is not known there.

        Raises RedisError, and Refusal, where a cell cannot say so and no other knows it.
        """
        own = [backend for backend in self.backends if record_id in backend.router]
        calls = [backend.submitter.cancel_known(record_id) for backend in own or self._able()]
        problem: Exception | None = None
        for call in asyncio.as_completed(calls):
            try:
                if await call:
                    return True
            except (RedisError, Refusal) as error:
                problem = error
        if problem is not None:
            raise problem
        return False

    async def start(self) -> None:
        """Raises RedisError where no cell answers."""
        starts = [backend.start() for backend in self.backends]
        found = await asyncio.gather(*starts, return_exceptions=True)
        errors = [error for error in found if error is not None]
        if len(errors) == len(starts) or any(not isinstance(error, RedisError) for error in errors):
            raise errors[0]

    def run(self) -> None:
        """Starts the tasks of all backends."""
        for backend in self.backends:
            backend.run()

    def fail_streams(self, failure: Failure) -> None:
        """Ends the open streams; no more are accepted."""
        for backend in self.backends:
            backend.streams.fail(failure)
        self.steps.close()

    async def stop(self) -> None:
        """After ``fail_streams``."""
        await asyncio.gather(*(backend.stop() for backend in self.backends))

    def _able(self) -> list[Backend]:
        """The backends that have a scheduler; all where none has."""
        return [backend for backend in self.backends if backend.readiness] or self.backends

    def _best(self) -> list[Backend]:
        """The backends that are as ready as any."""
        readiness = max(backend.readiness for backend in self.backends)
        return [backend for backend in self.backends if backend.readiness == readiness]

    def _on_backend(self) -> None:
        alive = any(backend.watch.serving for backend in self.backends)
        if alive != self.alive:
            self.alive = alive
            self._on_alive(self.name, alive)


def _weight(cell: str, record_id: str) -> bytes:
    return hashlib.blake2b(f"{cell} {record_id}".encode(), digest_size=8).digest()
