"""A worker group in virtual time: it checks every plan against the contract; its steps take random times."""

from __future__ import annotations

from collections.abc import Callable

from albireo.contract import codec
from albireo.contract.keys import Keys
from albireo.contract.plan import GroupShape
from albireo.store.interface import EntryId, OpenStore
from albireo.v1 import log_pb2 as log
from albireo.virtual.clock import VirtualClock
from tests.races.fake_worker import group_info, result_bytes
from tests.scheduler_svc.core.worker_model import Worker

TTL_SECONDS = 3.0
RENEWAL_SECONDS = 0.5
READ_SECONDS = 0.5


class ScriptedGroup:
    """One incarnation of a group. ``start`` runs it in two actors, as long as the clock goes on."""

    def __init__(
        self,
        clock: VirtualClock,
        open_store: OpenStore,
        keys: Keys,
        shape: GroupShape,
        *,
        fingerprint: str,
        step_seconds: Callable[[], float],
    ) -> None:
        """``step_seconds`` gives the duration of the next step."""
        self._clock = clock
        self._open_store = open_store
        self._keys = keys
        self._shape = shape
        self._step_seconds = step_seconds
        self._info = group_info("scripted", shape, fingerprint)
        self.steps = 0

    def start(self) -> None:
        self._clock.start("group", self._serve)
        self._clock.start("group lease", self._announce)

    def _announce(self) -> None:
        lease = self._open_store().lease(self._keys.group, self._info.SerializeToString(), ttl=TTL_SECONDS)
        assert lease.acquire()
        while True:
            self._clock.sleep(RENEWAL_SECONDS)
            lease.renew()

    def _serve(self) -> None:
        store = self._open_store()
        plans, results = store.log(self._keys.plans), store.log(self._keys.results, keep=1000)
        worker, after = Worker(self._shape), plans.last()
        while True:
            for raw_id, data in plans.read(after, READ_SECONDS):
                after = raw_id.decode()
                entry_id, entry = EntryId.parse(raw_id), log.PlanEntry.FromString(data)
                if entry.WhichOneof("entry") == "open":
                    worker = Worker(self._shape)
                elif worker.step == entry_id.step - 1:
                    plan = codec.plan_from_proto(entry_id.epoch, entry_id.step, entry.plan)
                    self._clock.sleep(self._step_seconds())
                    results.append(entry_id, result_bytes(plan, worker.run(plan)))
                    self.steps += 1
