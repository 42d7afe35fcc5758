"""Input stage: reads the plan log by exact id and turns each plan into a staged step (T2)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from albireo import codec
from albireo.keys import Keys
from albireo.logs import EntryId, Fenced, connect, read_streams
from albireo.v1 import log_pb2 as log
from worker_svc.runner import ModelRunner
from worker_svc.stage import StagedStep, StageQueue

logger = logging.getLogger(__name__)

BLOCK_MS = 500


class PlanGap(RuntimeError):
    """The plan log skipped a step: the ranks' tables would part."""


class InputStage:
    """Follows the plan log from ``after`` on; takes part in epochs that name this group's incarnation."""

    def __init__(
        self,
        redis_url: str,
        keys: Keys,
        *,
        incarnation: str,
        after: str,
        runner: ModelRunner,
        staged: StageQueue[StagedStep],
        on_epoch: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        """``on_epoch`` is called whenever an epoch begins for this group."""
        self._redis = connect(redis_url)
        self._plans = keys.plans
        self._incarnation = incarnation
        self._after = after
        self._runner = runner
        self._staged = staged
        self._on_epoch = on_epoch
        self._stop = stop
        self._next: EntryId | None = None  # exact id of the next plan; None before our first epoch

    def run(self) -> None:
        while not self._stop.is_set():
            replies = read_streams(self._redis, {self._plans: self._after}, block_ms=BLOCK_MS)
            for raw_id, data in replies.get(self._plans, ()):
                self._after = raw_id.decode()
                self._take(EntryId.parse(raw_id), log.PlanEntry.FromString(data))

    def _take(self, entry_id: EntryId, entry: log.PlanEntry) -> None:
        if entry.WhichOneof("entry") == "open":
            self._open(entry.open)
        elif self._next is not None:
            if entry_id != self._next:
                raise PlanGap(f"plan {entry_id} came where {self._next} was due")
            self._next = EntryId(entry_id.epoch, entry_id.step + 1)
            plan = codec.plan_from_proto(entry_id.epoch, entry_id.step, entry.plan)
            self._staged.put(StagedStep(plan, self._runner.prepare(plan)))

    def _open(self, opening: log.EpochOpen) -> None:
        if opening.group_incarnation == self._incarnation:
            # Steps of the last epoch that are staged already still run, in order, before any new one.
            self._runner.reset()
            self._next = EntryId(opening.epoch, 1)
            logger.info("epoch %d", opening.epoch)
            self._on_epoch()
        elif self._next is not None:
            raise Fenced(f"epoch {opening.epoch} was opened without this group")
