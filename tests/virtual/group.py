"""A worker group in virtual time: it checks every plan against the contract; its steps take random times.

It also dies, hangs, stops and drains as groups do, whenever a test says so.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape, Plan
from albireo.store.interface import EntryId, Fenced, OpenStore, Store
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from tests.races.fake_worker import group_info, result_bytes
from tests.scheduler_svc.core.worker_model import Worker

TTL_SECONDS = 3.0
BEAT_SECONDS = 0.25
READ_SECONDS = 0.5
RANKS = 2


class State(Enum):
    """What a group does."""

    SERVES = auto()
    DRAINS = auto()  # it ends after the step that runs
    HANGS = auto()  # its ranks are alive, and wait for each other without end
    STOPPED = auto()  # one rank is stopped, as by SIGSTOP; the others wait for it
    OVER = auto()  # no rank runs


class ScriptedGroup:
    """One life of a group of two ranks. ``start`` runs it in two actors."""

    def __init__(
        self,
        clock: VirtualClock,
        open_store: OpenStore,
        keys: Keys,
        shape: GroupShape,
        *,
        incarnation: str = "scripted",
        fingerprint: str,
        step_seconds: Callable[[], float],
        deadly: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """``step_seconds`` gives the duration of the next step. ``deadly``: whether a request of this name
        ends every group that runs it."""
        self._clock = clock
        self._open_store = open_store
        self._keys = keys
        self._step_seconds = step_seconds
        self._deadly = deadly
        self._info = group_info(incarnation, shape, fingerprint)
        self._info.tp = RANKS
        self._worker = Worker(shape)
        self.incarnation = incarnation
        self.shape = shape
        self.state = State.SERVES
        self.closed = ""  # why the scheduler has closed it
        self.steps = 0
        self.computing_since: float | None = None  # when the step began that runs

    def start(self) -> None:
        self._clock.start(f"group {self.incarnation}", self._serve)
        self._clock.start(f"beats {self.incarnation}", self._announce)

    def _announce(self) -> None:
        store, count = self._open_store(), 0
        key = self._keys.group(self.incarnation)
        lease = store.lease(key, self._info.SerializeToString(), ttl=TTL_SECONDS)
        assert lease.acquire()
        store.register(self.incarnation)
        while self.state is not State.OVER:
            count += 1
            for rank in range(RANKS):
                if not (rank and self.state is State.STOPPED):
                    beat = self._beat(count).SerializeToString()
                    store.announce(self._keys.rank(self.incarnation, rank), beat, ttl=TTL_SECONDS)
            lease.renew()
            self._clock.sleep(BEAT_SECONDS)
        if self.closed == "drained":
            lease.release()

    def _beat(self, count: int) -> log.RankBeat:
        if self.computing_since is None:
            return log.RankBeat(count=count, stage=log.RANK_STAGE_WAITING, step=self._worker.step)
        seconds = self._clock.now() - self.computing_since
        return log.RankBeat(
            count=count, stage=log.RANK_STAGE_COLLECTIVE, step=self._worker.step + 1, seconds=seconds
        )

    def _serve(self) -> None:
        store = self._open_store()
        plans = store.log(self._keys.plans(self.incarnation))
        after = "0-0"
        while self.state not in (State.OVER, State.DRAINS):
            for raw_id, data in plans.read(after, READ_SECONDS):
                after = raw_id.decode()
                if self.state is State.SERVES:
                    self._take(store, EntryId.parse(raw_id), log.PlanEntry.FromString(data))
                elif (entry := log.PlanEntry.FromString(data)).WhichOneof("entry") == "close":
                    self._end(entry.close.reason)
                elif self.computing_since is None:
                    self.computing_since = self._clock.now()
        if self.state is State.DRAINS:
            store.leave(self.incarnation)
            self._end("drained")

    def _take(self, store: Store, entry_id: EntryId, entry: log.PlanEntry) -> None:
        kind = entry.WhichOneof("entry")
        if kind == "open":
            self._worker = Worker(self.shape)
        elif kind == "close":
            self._end(entry.close.reason)
        else:
            plan = codec.plan_from_proto(entry_id.epoch, entry_id.step, entry.plan)
            self.computing_since = self._clock.now()
            self._clock.sleep(self._step_seconds())
            if self.state in (State.SERVES, State.DRAINS):
                self._run(store, entry_id, plan)

    def _run(self, store: Store, entry_id: EntryId, plan: Plan) -> None:
        result = self._worker.run(plan)
        if any(self._deadly(row.request_id) for row in self._worker.slots.values()):
            self.state = State.OVER
            return
        try:
            results = store.log(self._keys.results(self.incarnation), keep=1000)
            results.append(entry_id, result_bytes(plan, result))
        except Fenced:
            self._end("fenced")
        self.computing_since = None
        self.steps += 1

    def _end(self, reason: str) -> None:
        self.closed = self.closed or reason
        self.state = State.OVER
