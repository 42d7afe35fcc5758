"""Input stage: reads the plan log by exact id and turns each plan into a staged step (T2).

Runs in a thread of its own on every rank.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.runtime.clock import Clock
from albireo.store.interface import EntryId, OpenStore
from albireo.v1 import log_pb2 as log
from worker_svc.runner.interface import Runner
from worker_svc.stages.ending import closed
from worker_svc.stages.step import StagedStep

logger = logging.getLogger(__name__)

READ_SECONDS = 0.5
"""How long one read waits for a plan: how late a rank that waits sees that it should stop."""


class PlanGap(RuntimeError):
    """The plan log skipped a step: the ranks' slot tables would differ."""


class InputStage:
    """Follows the plans of its group from the first opening on."""

    def __init__(
        self,
        open_store: OpenStore,
        keys: Keys,
        clock: Clock,
        *,
        incarnation: str,
        runner: Runner[Any],
        on_epoch: Callable[[], None],
        until: Callable[[], bool],
    ) -> None:
        """``on_epoch`` is called whenever a scheduler begins to lead this group, in an epoch of its own.
        ``until``: whether no more plans are wanted."""
        self._plans = open_store().log(keys.plans(incarnation))
        self._clock = clock
        self._after = "0-0"
        self._runner = runner
        self._on_epoch = on_epoch
        self._until = until
        self._next: EntryId | None = None  # exact id of the next plan; None before the first opening

    @property
    def opened(self) -> bool:
        """Whether a scheduler leads this group, or has led it."""
        return self._next is not None

    def steps(self) -> Iterator[StagedStep]:
        """Staged steps in the order of the log, each as soon as its plan is there. Raises Fenced when the
        scheduler has closed the group."""
        while not self._until():
            entries = self._plans.read(self._after, READ_SECONDS)
            fetched = self._clock.time_ns()
            for raw_id, data in entries:
                if self._until():
                    return
                self._after = raw_id.decode()
                staged = self._take(EntryId.parse(raw_id), data, fetched)
                if staged is not None:
                    yield staged

    def _take(self, entry_id: EntryId, data: bytes, fetched: int) -> StagedStep | None:
        """The step of a plan. Raises ValueError for an entry that is damaged."""
        try:
            entry = codec.plan_from_bytes(data)
            match entry.WhichOneof("entry"):
                case "open":
                    self._open(entry.open)
                case "close":
                    raise closed(entry.close.reason)
                case _:
                    return self._stage(entry_id, entry.plan, fetched)
        except ValueError as error:
            raise ValueError(f"plan {entry_id}: {error}") from error
        return None

    def _stage(self, entry_id: EntryId, message: log.Plan, fetched: int) -> StagedStep:
        if entry_id != self._next:
            raise PlanGap(f"plan {entry_id} came where {self._next or 'an opening'} was due")
        self._next = EntryId(entry_id.epoch, entry_id.step + 1)
        plan = codec.plan_from_proto(entry_id.epoch, entry_id.step, message)
        batch = self._runner.prepare(plan)
        timing = message.timing
        timing.fetched, timing.staged = fetched, self._clock.time_ns()
        return StagedStep(plan, batch, timing)

    def _open(self, opening: log.GroupOpen) -> None:
        # Steps of the last epoch that are staged already still run, in order, before any new one.
        self._runner.reset()
        self._next = EntryId(opening.epoch, 1)
        logger.info("epoch %d, in which this group is %s", opening.epoch, opening.name)
        self._on_epoch()
