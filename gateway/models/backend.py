"""A backend: the scheduler and the worker groups of one model in one cell, as this gateway follows them.

A model has one for each cell. It creates and connects the parts that belong to one pair of logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from albireo.contract.keys import Keys
from albireo.runtime.clock import Clock
from albireo.store.interface import EntryId
from albireo.store.redis_errors import describe
from albireo.telemetry import Telemetry
from albireo.v1 import control_pb2 as control
from albireo.v1 import log_pb2 as log
from gateway.liveness.backend_load import BackendLoad
from gateway.liveness.periodic import pause
from gateway.liveness.served_model import ServedModel
from gateway.liveness.watch import Watch
from gateway.models.cell import Cell
from gateway.models.checkpoint import Checkpoint
from gateway.models.load import load_in
from gateway.requests.inbox_writer import InboxWriter
from gateway.requests.submission import Submitter
from gateway.settings import GatewaySettings
from gateway.store.heartbeat import Heartbeat
from gateway.store.redis_store import RedisGatewayStore
from gateway.store.retry import StoreRetry
from gateway.streams.failures import BEHIND
from gateway.streams.open_streams import OpenStreams
from gateway.streams.results_reader import ResultsReader
from gateway.streams.router import Router
from gateway.telemetry.step_feed import StepFeed
from gateway.telemetry.step_records import step_record

logger = logging.getLogger(__name__)

BEGIN_SECONDS = 0.5
"""Before a backend that could not begin tries again."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all backends of a gateway have in common."""

    settings: GatewaySettings
    gateway_id: str
    clock: Clock
    telemetry: Telemetry
    hits: Counter[str]  # refused and ended calls, by bound


class Backend:
    """``start``, ``run``, then ``stop``; on the event loop."""

    def __init__(
        self,
        shared: Shared,
        cell: Cell,
        model: str,
        checkpoint: Checkpoint,
        steps: StepFeed,
        on_alive: Callable[[], None],
    ) -> None:
        """``steps`` gets the record of every step. ``on_alive`` is called when ``watch.serving`` has
        changed."""
        self.cell = cell
        several = len(shared.settings.cell_addresses) > 1
        self._what = f"model {model}, cell {cell.name}" if several else f"model {model}"
        self._prefix = f"{cell.name}/" if several else ""
        self.store = RedisGatewayStore(cell.address, Keys(model), shared.gateway_id)
        self.served = ServedModel(checkpoint.fingerprint)
        self.load = BackendLoad()
        self._clock = clock = shared.clock
        self._heartbeat = Heartbeat(self.store, clock)
        self._steps = steps
        self.router = Router()
        self.reader = ResultsReader(self.store, clock, self.router, self._heartbeat, self._on_step)
        self.watch = Watch(
            self.store,
            clock,
            self._what,
            router=self.router,
            reader=self.reader,
            model=self.served,
            load=self.load,
            heartbeat=self._heartbeat,
            on_alive=on_alive,
            telemetry=shared.telemetry,
        )
        self.submitter = Submitter(
            self.store,
            clock,
            max_queue=shared.settings.max_queue,
            record_seconds=shared.settings.record_seconds,
            policy_of=cell.policy_of,
            hits=shared.hits,
        )
        writer = InboxWriter(self.submitter, shared.hits)
        self.streams = OpenStreams(self.router, self.submitter, writer, checkpoint.vocabulary)
        self._begun = False
        self._reading: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def readiness(self) -> int:
        """2: it serves; 1: there is a scheduler, with which requests can wait for a group; 0: neither."""
        if self.watch.serving:
            return 2
        known = self.served.info is not None and not self.served.mismatch
        return 1 if self.watch.leased and known else 0

    async def start(self) -> None:
        """Follows the logs from now on. Raises RedisError; then the task tries again."""
        await self.reader.start()
        await self._heartbeat.start()
        self._begun = True

    def run(self) -> None:
        """Starts the task, which ends at ``stop``."""
        self._task = asyncio.create_task(self._run())

    async def load_of(self) -> control.Load | None:
        """What the scheduler publishes, with the GPUs of its groups, whose names are those among all cells.

        Raises RedisError, and DecodeError for what cannot be read.
        """
        return await load_in(self.store, self._prefix)

    async def stop(self) -> None:
        """After ``streams.fail``: its requests are cancelled, and it follows nothing any more."""
        await self.streams.finish()
        self._stopping.set()
        self.reader.stop()
        self.watch.stop()
        # Only the blocking read is cancelled: redis-py sometimes ignores a cancellation within a command.
        if self._reading is not None:
            self._reading.cancel()
        if self._task is not None:
            await self._task
        with contextlib.suppress(RedisError):  # then the key expires
            await self._heartbeat.stop()
        await self.store.close()

    async def _run(self) -> None:
        """Follows the cell. An unexpected error harms this backend alone, which then begins anew."""
        retry = StoreRetry(self.store, self._clock)
        while not self._stopping.is_set():
            try:
                if not self._begun:
                    await self.start()
                    retry.succeeded()
                async with asyncio.TaskGroup() as group:
                    self._reading = group.create_task(self.reader.run())
                    group.create_task(self.watch.run())
            except RedisError as error:  # at the start: the cell does not answer
                if not retry.failing:
                    logger.warning("%s: %s", self._what, describe(error))
                await retry.gives_up(error)
            except Exception:
                logger.exception("%s: begins anew", self._what)
                self._begun = False
                self.router.fail_all(BEHIND)
            await pause(self._stopping, BEGIN_SECONDS)

    def _on_step(self, group: str, entry_id: EntryId, result: log.StepResult, received: int) -> None:
        record = step_record(
            self._prefix + group,
            entry_id,
            result,
            received=received,
            handed_out=self._clock.time_ns(),
            simulated=self.served.simulated,
        )
        self._steps.put(record)
